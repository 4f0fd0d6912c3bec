"""The word for a JSON object, which every part of the emulator uses."""

from __future__ import annotations

from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]
