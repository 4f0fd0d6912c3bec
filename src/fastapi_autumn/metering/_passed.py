"""Counting the tokens of a text, where no provider has counted them."""

import sys
import threading
from typing import Any

__all__ = ["by_characters", "count_tokens", "prepare"]

_CHARACTERS_A_TOKEN = 4
_encodings: dict[str, Any] = {}
"""By model; None while it is being loaded, and where there is none."""


def count_tokens(text: str, model: str = "") -> tuple[int, str]:
    """Return the tokens of `text`, and how they were counted."""
    encoding = _encodings.get(model)
    if encoding is not None:
        return len(encoding.encode(text, disallowed_special=())), "tiktoken"
    return by_characters(text)


def by_characters(text: str) -> tuple[int, str]:
    """Return a token for each four characters of `text`."""
    return -(-len(text) // _CHARACTERS_A_TOKEN), f"characters/{_CHARACTERS_A_TOKEN}"


def prepare(model: str) -> None:
    """Have a tokenizer loaded for `model`, if the application uses tiktoken. Returns at once.

    tiktoken fetches its tables from the network when it has none, so that is not done while somebody waits.
    """
    if model in _encodings or "tiktoken" not in sys.modules:
        return
    _encodings[model] = None
    threading.Thread(target=_load, args=(model,), name="autumn-tokenizer", daemon=True).start()


def _load(model: str) -> None:
    try:
        _encodings[model] = sys.modules["tiktoken"].encoding_for_model(model)
    except Exception:  # noqa: BLE001 - an unknown model, no network: characters are counted instead
        return
