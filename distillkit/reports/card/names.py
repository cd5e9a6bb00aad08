"""What models and data are called in public: repositories by their id, of local paths the last part."""

from __future__ import annotations

import os
import re
from pathlib import Path

from distillkit.data.formats import file_kind
from distillkit.reports.card import markdown

_HUB_ID = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)?(?:[:@][A-Za-z0-9][A-Za-z0-9._/:@-]*)?"
)


def hub_repository(reference: str | None) -> str | None:
    """The repository that a reference to the Hub names, without its revision; None where it names none."""
    repository = markdown.line(reference or "").partition("@")[0]
    return repository if _HUB_ID.fullmatch(repository) and ":" not in repository else None


def data_set(text: str) -> str:
    """A named or Hub data set as it is; of a file or folder the last part."""
    is_local = (
        not _HUB_ID.fullmatch(text) or file_kind(Path(text)) is not None or os.path.exists(text)  # noqa: PTH110
    )
    return last_part(text) if is_local else text


def last_part(path: str) -> str:
    """`/home/me/texts` -> `texts`: what lies above it is nobody's business."""
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return "unnamed" if name in ("", ".", "..") or name.startswith("~") else name
