"""The Hub's cache as a folder of data: snapshots, whose files are links to blobs beside them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from distillkit.data.notes import ReadingNotes
from distillkit.errors import UsageError

_SNAPSHOTS, _BLOBS, _REFS = "snapshots", "blobs", "refs"
_MAIN = "main"
_SHOWN = 12
_LONGEST_LINK = 1024
# Up at least one folder, then down to a name, in one line without an end.
_LINK_TEXT = re.compile(r"(\.\./)+([^/\s]+/)*[^/\s]+")


def written_link(path: Path) -> Path | None:
    """Where a link leads that was saved as a text file with its target, as copies without links have it (Git on some
    systems, zip archives); None for any other file."""
    try:
        if path.is_symlink() or path.stat().st_size > _LONGEST_LINK:
            return None
        text = path.read_bytes().decode("utf-8")
    except (OSError, ValueError):
        return None
    if not _LINK_TEXT.fullmatch(text):
        return None
    return Path(os.path.normpath(path.parent / text))


def blob_folders(root: Path) -> list[Path]:
    """Where the links of a folder inside a snapshot may lead: the blobs of its repository.

    Args:
        root: the folder, or a file in it; without links.
    """
    return [
        parent.parent / _BLOBS
        for parent in (root, *root.parents)
        if parent.name == _SNAPSHOTS and (parent.parent / _BLOBS).is_dir()
    ]


def snapshot_folder(folder: Path, shown: str, notes: ReadingNotes) -> Path:
    """The snapshot to read where a folder is that of a repository in the Hub's cache; else the folder itself.

    The snapshot is that of the main branch, or the only one.

    Raises:
        UsageError: there are several and none is that of the main branch.
    """
    snapshots = folder / _SNAPSHOTS
    if not snapshots.is_dir() or not ((folder / _REFS).is_dir() or (folder / _BLOBS).is_dir()):
        return folder
    commits = sorted(path.name for path in snapshots.iterdir() if path.is_dir())
    try:
        main = (folder / _REFS / _MAIN).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        main = ""
    commit = main if main in commits else commits[0] if len(commits) == 1 else None
    if commit is None:
        raise UsageError(
            f"{shown} is a repository in the Hub's cache with {len(commits)} snapshots",
            hint=f"give one of them: {', '.join(f'{shown}/{_SNAPSHOTS}/{name}' for name in commits[:3]) or 'none is there'}",
        )
    notes.remark(f"{shown} is a repository in the Hub's cache: its snapshot {commit[:_SHOWN]} is read")
    return snapshots / commit
