"""`python -m demo_app`: serve on a free port, and say what to try."""

import os
import socket
import sys
from contextlib import suppress

import uvicorn

from demo_app.app import create_app
from fastapi_autumn.errors import ConfigurationError

__all__ = ["main"]

_DEFAULT_PORT = 8000

_TRY = """
A metered AI service on {url} - open it in a browser, or paste this:

# 1. A call that succeeds. It costs 5 credits of Alice's 50; the answer's headers say so.
curl -siw '\\n' {url}/ai/v1/chat/completions {alice} \\
  -d '{{"model": "gpt-4o", "messages": [{{"role": "user", "content": "Hello"}}]}}'

# 2. A stream that fails half-way. The balance is the same before and, a moment later, after.
{balance}
curl -sN {url}/ai/v1/chat/completions {alice} \\
  -d '{{"model": "gpt-4o", "messages": [{{"role": "user", "content": "Hello"}}], "stream": true, \
"demo_fail": "mid-stream"}}'
sleep 1
{balance}

# 3. Running out: Bob has 50 credits, and each of these calls costs 30. The second answer is a 402.
curl -siw '\\n' {url}/ai/v1/chat/completions {bob} \\
  -d '{{"model": "claude-opus-4", "messages": [{{"role": "user", "content": "Hello"}}]}}'
curl -siw '\\n' {url}/ai/v1/chat/completions {bob} \\
  -d '{{"model": "claude-opus-4", "messages": [{{"role": "user", "content": "Hello"}}]}}'

# 4. The official client: pip install openai, then
#    OpenAI(base_url="{url}/ai/v1", api_key="demo-carol")

Other ways to fail: "demo_fail": "before-first-byte", "rate-limit" or "crash".
Stop with Ctrl-C.
"""


def main() -> None:
    """Serve until interrupted. `PORT` is the port; without it 8000, or any that is free."""
    try:
        app = create_app()
    except ConfigurationError as error:
        sys.exit(f"error: {error}")
    port = os.environ.get("PORT")
    try:
        listening = _listen(port)
    except (OSError, ValueError) as error:
        sys.exit(f"error: cannot listen on port {port} ({error}); choose another one with PORT=...")
    print(_instructions(listening.getsockname()[1]), flush=True)  # noqa: T201 - this is what it is for
    with suppress(KeyboardInterrupt):  # the way to end it, which uvicorn hands on when it is done
        uvicorn.Server(uvicorn.Config(app)).run(sockets=[listening])


def _listen(port: str | None) -> socket.socket:
    if port is not None:
        return _bound(int(port))
    try:
        return _bound(_DEFAULT_PORT)
    except OSError:
        return _bound(0)


def _bound(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()  # now, so that whoever pastes quickly is served once the application is up
    except OSError:
        listening.close()
        raise
    return listening


def _instructions(port: int) -> str:
    url = f"http://127.0.0.1:{port}"
    alice, bob = (
        f"-H 'Authorization: Bearer {token}' -H 'Content-Type: application/json'"
        for token in ("demo-alice", "demo-bob")
    )
    balance = f"""curl -s {url}/billing/customer {alice} | grep -o '"remaining":"*[0-9.]*' | head -1"""
    return _TRY.format(url=url, alice=alice, bob=bob, balance=balance)


if __name__ == "__main__":
    main()
