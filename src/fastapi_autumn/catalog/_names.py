"""Variable names for the features and plans of a file: made from their ids, each of them once."""

import keyword
import re
from collections.abc import Callable, Iterable

__all__ = ["BUILDERS", "Kind", "camel_case", "snake_case", "variable_names"]

Kind = str
"""`feature`, `plan` or `variant`."""

BUILDERS = frozenset(
    {
        *("Feature", "FreeTrial", "ModelMarkup", "Proration", "Reset", "Rollover", "Tier", "Variant"),
        *("customize", "feature", "item", "item_filter", "plan", "plan_license", "price"),
    }
)
"""What a catalog file imports; a variable of the same name would hide it."""

_NO_VARIABLES = BUILDERS | {*keyword.kwlist, *keyword.softkwlist}


def snake_case(text: str) -> str:
    """`text` as a Python variable: `top-up` becomes `top_up`."""
    return "_".join(_words(text)).lower()


def camel_case(text: str) -> str:
    """`text` as a TypeScript variable: `ai_credits` becomes `aiCredits`."""
    first, *others = _words(text) or [""]
    return first.lower() + "".join(word[:1].upper() + word[1:].lower() for word in others)


def variable_names(
    ids: Iterable[tuple[Kind, str]], *, case: Callable[[str], str] = snake_case, taken: Iterable[str] = ()
) -> dict[tuple[Kind, str], str]:
    """A variable name for each (kind, id), in their order; the later one of two with the same name says its kind."""
    used = {*taken, *_NO_VARIABLES}
    names: dict[tuple[Kind, str], str] = {}
    for kind, id_ in ids:
        plain = case(id_)
        if not plain or plain[0].isdigit():
            plain = case(f"{kind if kind == 'feature' else 'plan'}_{id_}")
        name = plain if plain not in used else case(f"{plain}_{kind}") if case is snake_case else plain + kind.title()
        number = 2
        while name in used:
            name = f"{plain}_{number}" if case is snake_case else f"{plain}{number}"
            number += 1
        used.add(name)
        names[kind, id_] = name
    return names


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^a-zA-Z0-9]+", text) if word]
