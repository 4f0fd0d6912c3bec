"""The README as package indexes show it: without links to files that are not there."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

__all__ = ["ReadmeHook"]

_IMAGE = re.compile(r"!\[[^\]]*\]\((?!https?://)[^)\s]+\)\n*")
_RELATIVE_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://|#)[^)\s]+\)")


class ReadmeHook(MetadataHookInterface):
    """Keeps the text of a relative link and drops its target: no address of this repository is known to be true."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme`, which pyproject.toml leaves to this hook."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = _IMAGE.sub("", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": _RELATIVE_LINK.sub(r"\1", text)}
