"""The story of a scenario as a table: virtual time, who, what happened."""

from simulation.scenario import Verdict

__all__ = ["story"]


def story(verdict: Verdict) -> str:
    """Tell what happened, line by line, and what was wrong at the end."""
    lines = [f"{'seconds':>10}  {'who':<8}  what"]
    lines += [f"{at:>10.3f}  {who:<8}  {what}" for at, who, what in verdict.story]
    lines += ["", *(f"VIOLATION  {line}" for line in verdict.found)] if verdict.found else ["", "no violation"]
    return "\n".join(lines)
