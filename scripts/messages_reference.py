"""Write the tables in docs/messages.md: every message of the package, as what it comes, and what to do next.

The messages are read from the source, where an error is made. An error for which `NEXT` has no step stops the script.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from fastapi_autumn import errors
from fastapi_autumn.settlement.replies import Conflict

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fastapi_autumn"
PAGE = ROOT / "docs" / "messages.md"
BEGIN, END = "<!-- begin: scripts/messages_reference.py -->\n", "<!-- end -->\n"

ROOMS = {
    "_refusals.py": "What a customer gets",
    "gate": "The gate",
    "router.py": "The billing routes",
    "_browsers.py": "The billing routes",
    "_purchases.py": "The billing routes",
    "middleware.py": "The middleware, and who is calling",
    "_identity.py": "The middleware, and who is calling",
    "webhooks": "Webhooks",
    "settings.py": "Settings",
    "client": "The client, and the way to Autumn",
    "transports": "The client, and the way to Autumn",
    "models.py": "The client, and the way to Autumn",
    "customers.py": "The client, and the way to Autumn",
    "pricing": "Prices and amounts",
    "catalog": "Plans as code",
    "settlement": "The outbox",
    "cli": "The command",
}
ELSEWHERE = "Charging"
ORDER = list(dict.fromkeys([*list(ROOMS.values())[:2], ELSEWHERE, *ROOMS.values()]))

ALIASES = {"BadParameter": "wrong usage", "ValueError": "ValueError", "TypeError": "TypeError"}
NEXT = {
    "not_authenticated": "Send credentials. If you did, see what `identify` returns for them.",
    "body_too_large": "Send less, or raise `AUTUMN_MAX_BODY_BYTES`.",
    "billing_unavailable": "Try again after `Retry-After`. Operators: `autumn doctor`.",
    "in_progress": "Wait for the first attempt, then try again under the same key.",
    "already_answered": "Use a new key for a new answer.",
    "idempotency_key_reused": "Use a new key for another request.",
    "json_expected": "Send `Content-Type: application/json`.",
    "invalid_url": "Pass an https address, or a path of this site.",
    "plan_not_offered": "Show `GET /billing/plans`, or add the plan to `plans=`.",
    "feature_not_found": "Ask for a feature that `autumn features` shows.",
    "credit_system": "Ask for one of the features in `features`, such as `ai_usage`.",
    "plan_is_free": "Do not offer to cancel a plan that costs nothing.",
    "busy": "Look at the customer's plans in a moment.",
    "outcome_unknown": "Look at the customer's plans before another try.",
    "webhook_not_verified": "Check `AUTUMN_WEBHOOK_SECRET`, the clock, and that nothing on the way changes the body.",
    "webhook_replayed": "Nothing, if the sender is Autumn: it signs each attempt anew.",
    "webhook_running": "Nothing: the sender comes back.",
    "webhook_not_noted": "Operators: look at the outbox's database; the sender comes back.",
    "webhook_failed": "Operators: the log has what the handler raised; the sender comes back.",
    "billing_refused": "Operators: the log has Autumn's words; check the key with `autumn env`.",
    "AutumnError": "Do what the message says.",
    "ConfigurationError": "Change what the message names; nothing was sent.",
    "PriceListError": "Correct the price list; the message has the line.",
    "CatalogError": "Correct the catalog file; nothing was pushed.",
    "AmountError": "Pass a positive, finite number with at most ten decimal places.",
    "UnknownUsage": "Pass what the model's provider reports as usage.",
    "UnsendableRequest": "Correct what was passed; nothing was sent.",
    "Refused": "Do what the `code` says: see the rows of its kinds.",
    "InsufficientCredits": "Show what would help: `detail` has the balance and the plans.",
    "UnknownModel": "Add the model to the price list, or ask for one that is in it.",
    "Unbounded": "Limit the call, such as with `max_tokens`.",
    "BudgetExceeded": "End the run, or open it with a larger budget.",
    "NotEntitled": "Show the plans that include the call.",
    "RequestRejected": "Read Autumn's own words; nothing was done.",
    "CustomerNotFound": "Create the customer with `customers.get_or_create`.",
    "Unavailable": "Nothing is known to be done; try again in a moment.",
    "NotSent": "Try again; nothing was sent.",
    "ConnectFailed": "Check `AUTUMN_BASE_URL` and the network with `autumn doctor`.",
    "Overloaded": "Try again in a moment, or raise `AUTUMN_MAX_CONCURRENCY`.",
    "CircuitOpen": "Wait; Autumn is asked again by itself within 15 seconds.",
    "RateLimited": "Try again after `retry_after`; nothing was done.",
    "Uncertain": "Look at Autumn before you try again; it may have been done.",
    "NoAnswer": "Look at Autumn before you try again; it may have been done.",
    "ServerFailure": "Look at Autumn before you try again; it may have been done.",
    "NotVerified": "Look at Autumn before you try again; it may have been done.",
    "UnexpectedAnswer": "Check that `AUTUMN_BASE_URL` is Autumn's and that no proxy answers in its place.",
    "DuplicateRequest": "Look at Autumn's events: an earlier attempt ended, or still runs.",
    "LockAlreadyExists": "Look at Autumn's events: an earlier attempt has placed the hold.",
    "LockNotClaimable": "Look at Autumn's events: another finalize has the hold.",
    "SignInFailed": "Run `autumn login` again.",
    "wrong usage": "Correct the option; `--help` shows what it takes.",
    "ValueError": "Correct the value; the message says what it has to be.",
    "TypeError": "Pass what the message asks for.",
}


def messages() -> Iterator[tuple[str, str, str]]:
    """Go through the source: room, message, and the error, status or code that it comes as."""
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE)
        if place.parts[0] in {"emulator", "pytest_plugin.py"} or place.name == "errors.py":
            continue
        room = ROOMS.get(place.parts[0], ELSEWHERE)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (found := _made(node)):
                yield room, *found
            if isinstance(node, ast.match_case) and (found := _chosen(node)):
                yield room, *found


def _made(call: ast.Call) -> tuple[str, str] | None:
    """Return message and kind of an error that a call makes; None for other calls, and for messages of elsewhere."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    texts = [text for argument in call.args if (text := _text(argument)) is not None]
    if name == "refusal" and len(call.args) > 2:
        code, message = _text(call.args[1]), _text(call.args[2])
        return None if message is None or code is None else (message, code)
    kind = ALIASES.get(name, name)
    if kind not in NEXT and not (isinstance(getattr(errors, name, None), type)):
        return None
    text = max(texts, key=len, default="")
    return (text, kind) if " " in text.strip() else None


def _chosen(case: ast.match_case) -> tuple[str, str] | None:
    """Return message and code where one case of several names them, and the refusal is made from them below."""
    message = code = None
    for assignment in (node for node in case.body if isinstance(node, ast.Assign)):
        (target,) = assignment.targets
        if isinstance(target, ast.Name) and target.id == "message":
            message = _text(assignment.value)
        elif isinstance(target, ast.Tuple) and isinstance(assignment.value, ast.Tuple):
            names = [getattr(name, "id", "") for name in target.elts]
            code = _text(assignment.value.elts[names.index("code")]) if "code" in names else code
    if code is None and isinstance(case.pattern, ast.MatchValue):
        member = ast.unparse(case.pattern.value)
        code = Conflict[member.removeprefix("Conflict.")].value if member.startswith("Conflict.") else None
    return None if message is None or code is None else (message, code)


def _text(node: ast.AST) -> str | None:
    """Return a text as it is written, with an ellipsis for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "\N{HORIZONTAL ELLIPSIS}" for part in node.values
        )
    return None


def reference() -> str:
    """Return the tables."""
    found = sorted(set(messages()))
    parts = []
    for room in ORDER:
        rows = [(text, kind) for place, text, kind in found if place == room]
        if rows:
            lines = [f"| {_cell(text)} | `{kind}` | {NEXT[kind]} |" for text, kind in rows]
            parts.append(
                "\n".join([f"## {room}\n", "| message | comes as | next step |", "|---|---|---|", *lines]) + "\n"
            )
    return "\n".join(parts)


def with_reference(page: str) -> str:
    """Return `page` with the tables between the two marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + reference() + END + rest.split(END)[1]


def _cell(text: str) -> str:
    for character in "\\`*_{}[]<>#|$":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE} is up to date\n")
