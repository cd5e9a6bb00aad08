"""Local files and folders -> documents."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distillkit.console import Console, format_bytes
from distillkit.data.document import Document
from distillkit.data.formats import DataFile, file_kind, known_suffixes_text, read_rows
from distillkit.data.notes import ReadingNotes
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.rows import row_documents
from distillkit.errors import UsageError
from distillkit.storage import sha256_of

_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def standard_split_name(name: str) -> str | None:
    """The split that a usual name means (`dev` -> `validation`); None for any other name."""
    return _SPLIT_NAMES.get(name.lower())


@dataclass(frozen=True)
class SourceFiles:
    """The files that a path stands for.

    Attributes:
        root: what the names are relative to.
        files: name (with "/" between folders) -> path, sorted by name.
    """

    root: Path
    files: dict[str, Path]

    def by_split(self) -> dict[str, list[str]]:
        """The names by split, if files or top folders are called train, validation, test; else all under "all".

        A folder that mixes such names with others is not taken to be split.
        """
        splits: dict[str, list[str]] = {}
        for name in self.files:
            top = name.split("/")[0]
            split = standard_split_name(top.split(".")[0])
            if split is None:
                return {"all": list(self.files)}
            splits.setdefault(split, []).append(name)
        return splits if len(splits) > 1 and "train" in splits else {"all": list(self.files)}


def find_files(path_text: str, notes: ReadingNotes) -> SourceFiles:
    """The readable files of a path: the file itself, or what a folder holds, recursively.

    Hidden files, files of unknown formats and links that lead out of the folder are left out, and noted.

    Raises:
        UsageError: the path does not exist, is of an unknown format, or holds nothing that can be read.
    """
    try:
        path = Path(path_text).expanduser()
        exists = path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"'{path_text}' is not a usable path ({error})") from error
    if not exists:
        raise UsageError(f"no such file or folder: {path_text}", hint=_similar_path(path))
    if path.is_dir():
        return _folder_files(path, path_text, notes)
    if not path.is_file():
        raise UsageError(f"{path_text} is not an ordinary file")
    if file_kind(path) is None:
        raise UsageError(
            f"{path_text}: unknown format", hint=f"known: {known_suffixes_text()}; rename plain text to .txt"
        )
    return SourceFiles(path.parent, {path.name: path})


def _similar_path(path: Path) -> str:
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return f"the folder {path.parent} does not exist either; give the path from the current folder or a full one"
    close = difflib.get_close_matches(path.name, siblings, n=1)
    if close:
        return f"did you mean {path.parent / close[0]}?"
    return "give the path from the current folder or a full one"


def _folder_files(folder: Path, path_text: str, notes: ReadingNotes) -> SourceFiles:
    root = folder.resolve()
    files: dict[str, Path] = {}
    links: dict[str, Path] = {}
    unknown = 0
    unknown_example = ""
    for parent, folders, names in os.walk(folder, onerror=_refuse_unreadable):
        visible = [name for name in folders if not name.startswith(".")]
        notes.count("hidden files and folders left out", len(folders) - len(visible))
        linked_folders = [name for name in visible if Path(parent, name).is_symlink()]
        notes.count("links to folders not followed", len(linked_folders))
        folders[:] = sorted(set(visible) - set(linked_folders))
        for name in names:
            path = Path(parent, name)
            if name.startswith("."):
                notes.count("hidden files and folders left out")
            elif file_kind(path) is None:
                unknown += 1
                unknown_example = min(unknown_example or name, name)
            elif path.is_symlink():
                links[path.relative_to(folder).as_posix()] = path
            elif path.is_file():
                files[path.relative_to(folder).as_posix()] = path
    targets = {path.resolve() for path in files.values()}
    for name, path in sorted(links.items()):
        # Unlike Path.resolve, this does not raise on links that lead in a circle.
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(root) or not target.is_file():
            notes.count("links that lead out of the folder or nowhere not followed")
        elif target not in targets:
            targets.add(target)
            files[name] = path
    if unknown:
        notes.count(f"files of other formats left out (such as {unknown_example})", unknown)
    if not files:
        left_out = "; ".join(notes.lines())
        raise UsageError(
            f"{path_text}: the folder holds no file that can be read" + (f" ({left_out})" if left_out else ""),
            hint=f"known formats: {known_suffixes_text()}",
        )
    return SourceFiles(folder, dict(sorted(files.items())))


def _refuse_unreadable(error: OSError) -> None:
    raise UsageError(f"{error.filename}: cannot be read ({error.strerror})") from error


def hash_files(source: SourceFiles) -> dict[str, str]:
    """The sha256 of every file, by its name.

    Raises:
        UsageError: one of them cannot be read.
    """
    digests = {}
    for name, path in source.files.items():
        try:
            digests[name] = sha256_of(path)
        except OSError as error:
            raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from error
    return digests


def folder_documents(
    source: SourceFiles,
    names: list[str],
    *,
    options: ReadingOptions,
    section_bytes: int,
    notes: ReadingNotes,
    console: Console,
) -> Iterator[Document]:
    """The documents of several files, one file after another; no document spans two files.

    Args:
        names: which of the files.
        options: what the user said of the files.
        section_bytes: longer texts are cut.

    Raises:
        UsageError: a file cannot be used; the message names file, line and byte, or row and column.
    """
    total = sum(source.files[name].stat().st_size for name in names)
    with console.progress(f"reading {format_bytes(total)} of text", total=len(names), unit="files") as progress:
        for name in names:
            file = DataFile(source.files[name], name, options, section_bytes, notes)
            yield from row_documents(read_rows(file), section_bytes, notes)
            progress.advance()
