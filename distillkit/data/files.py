"""Local files and folders -> documents."""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from distillkit.console import Console, format_bytes
from distillkit.data.compression import (
    ARCHIVE_SUFFIX,
    is_archive,
    packed_suffix,
    visible_members,
)
from distillkit.data.dataset_card import CARD, choose_config, config_files, read_card
from distillkit.data.document import Document
from distillkit.data.folder_walk import is_run, walk_data, without_records
from distillkit.data.formats import DataFile, file_kind, known_suffixes_text, read_rows
from distillkit.data.hub_folders import blob_folders, snapshot_folder, written_link
from distillkit.data.notes import ReadingNotes
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.recognise import by_content, by_name, refusal
from distillkit.data.rows import row_documents
from distillkit.data.split_names import SplitFiles, assign_splits, describe_splits, split_word
from distillkit.errors import UsageError
from distillkit.storage import sha256_of

_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_NAMED = 3


def from_here(path: str) -> str:
    """A path for messages: as seen from the current folder, where it lies below it."""
    with contextlib.suppress(OSError):  # The current folder may have been deleted.
        if Path(path).is_absolute() and Path(path).is_relative_to(Path.cwd()):
            return os.path.relpath(path)
    return path


def standard_split_name(name: str) -> str | None:
    """The split that a usual name means (`dev` -> `validation`); None for any other name."""
    return _SPLIT_NAMES.get(name.lower())


@dataclass(frozen=True)
class StoredFile:
    """Where the bytes of a data file lie.

    Attributes:
        path: the file, or the zip archive that holds it.
        size: in bytes, as it lies there, or unpacked in an archive.
        member: its name in the archive, None for a file of its own.
    """

    path: Path
    size: int
    member: str | None = None


@dataclass(frozen=True)
class SourceFiles:
    """The files that a path stands for.

    Attributes:
        files: name (with "/" between folders) -> file, sorted by name; files of no split are not among them.
        splits: the names by split: {"all": …}, or some of "train", "validation", "test".
        card: the data card that says what is which split, None where their names do.
    """

    files: dict[str, StoredFile]
    splits: dict[str, list[str]]
    card: Path | None = None


@dataclass
class _Found:
    """Files that can be read, and what is not read though it is there."""

    files: dict[str, StoredFile] = field(default_factory=dict)
    links: dict[str, Path] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    recognised: dict[str, str] = field(default_factory=dict)
    lost_links: int = 0


def find_files(path_text: str, notes: ReadingNotes, output_dir: Path | None = None) -> SourceFiles:
    """The readable files of a path by split: the file itself, or what a folder holds, recursively.

    What of a folder is no data is left out, and noted: see `walk_data`. Links are followed within the folder, and from
    the Hub's cache to its blobs.

    Args:
        path_text: the path; `FOLDER:CONFIG` for a configuration that the folder's data card declares.
        output_dir: where this run lies or will lie.

    Raises:
        UsageError: the path does not exist, is of an unknown format, or holds nothing that can be read.
    """
    config: str | None = None
    try:
        path = Path(path_text).expanduser()
        exists = path.exists()
        if not exists and ":" in path_text:
            folder_text, _, config = path_text.rpartition(":")
            folder = Path(folder_text).expanduser()
            if folder_text and config and folder.is_dir():
                path, path_text, exists = folder, folder_text, True
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"'{path_text}' is not a usable path ({error})") from error
    if not exists:
        raise UsageError(f"no such file or folder: {path_text}", hint=_similar_path(path))
    path_text = from_here(path_text)
    if path.is_dir():
        return _folder_source(path, path_text, config, notes, output_dir)
    if not path.is_file():
        raise UsageError(f"{path_text} is not an ordinary file")
    files = _named_file(path, path_text, notes)
    if len(files) == 1:
        return SourceFiles(files, {"all": list(files)})
    found = assign_splits(list(files))
    return _with_splits(files, found, None, notes)


def _similar_path(path: Path) -> str:
    if path.is_symlink():
        return f"it is a link to {os.path.realpath(path)}, which is not there"
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return f"the folder {path.parent} does not exist either; give the path from the current folder or a full one"
    close = difflib.get_close_matches(path.name, siblings, n=1)
    if close:
        return f"did you mean {path.parent / close[0]}?"
    return "give the path from the current folder or a full one"


def _named_file(path: Path, path_text: str, notes: ReadingNotes) -> dict[str, StoredFile]:
    """The file that the user named, or what is in it where it is an archive."""
    kind = file_kind(path)
    path, name = _behind_written_link(path, path_text), path.name
    known = by_content(path, path_text, kind) or (by_name(name) if kind is None else None)
    if known is not None:
        raise refusal(path_text, known)
    if is_archive(path, path_text):
        return _members(path, name, path_text, notes, is_named=True)
    if kind is None:
        hint = f"known: {known_suffixes_text()}; rename plain text to .txt"
        if packed_suffix(name):
            hint = f"put the format in front of {packed_suffix(name)}, as in texts.jsonl.gz; {hint}"
        raise UsageError(f"{path_text}: unknown format", hint=hint)
    return {name: StoredFile(path, path.stat().st_size)}


def _behind_written_link(path: Path, shown: str) -> Path:
    """The blob of the Hub's cache that a file names which was a link once; any other file itself.

    Raises:
        UsageError: it was a link once, and does not lead to such a blob.
    """
    target = written_link(path)
    if target is None:
        return path
    place = Path(os.path.realpath(target.parent))
    if target.is_file() and place in blob_folders(Path(os.path.realpath(path.parent))):
        return target
    raise UsageError(
        f"{shown} holds nothing but the path of another file: it was a link once",
        hint=f"copy the folder with its links followed (cp -rL), or give the file that it led to, {target}",
    )


def _members(path: Path, name: str, shown: str, notes: ReadingNotes, *, is_named: bool) -> dict[str, StoredFile]:
    """The data files in an archive, named "ARCHIVE/MEMBER"; the only one of unknown format has that of the archive's name.

    The only one is called as the archive is, unless its own name alone tells a split. What is about the data is left out, as
    in folders.

    Args:
        is_named: the user named the archive, rather than the folder that it lies in.

    Raises:
        UsageError: it is damaged, or holds no data file and is named.
    """
    inside = visible_members(path, shown)
    data = without_records([member.name for member in inside], name, notes)
    left_out = next((f"; {member.name} is no data" for member in inside if member.name not in data), "")
    inside = [member for member in inside if member.name in data]
    readable = [member for member in inside if file_kind(Path(member.name)) is not None]
    if not readable and len(inside) == 1 and file_kind(path) is not None:
        readable = inside
    others = len(inside) - len(readable)
    if not readable and not is_named:
        notes.count("archives without a file that can be read left out")
        return {}
    if not readable:
        example = f" (such as {inside[0].name})" if inside else ""
        raise UsageError(
            f"{shown}: the archive holds no file that can be read{example}{left_out}",
            hint=f"known formats: {known_suffixes_text()}",
        )
    if others:
        example = next(member.name for member in inside if member not in readable)
        notes.count(f"files of other formats in archives left out (such as {example})", others)
    if len(inside) == 1 and (split_word(name) or not split_word(inside[0].name)):
        return {name: StoredFile(path, inside[0].size, inside[0].name)}
    return {f"{name}/{member.name}": StoredFile(path, member.size, member.name) for member in readable}


def _folder_source(
    folder: Path, path_text: str, config: str | None, notes: ReadingNotes, output_dir: Path | None
) -> SourceFiles:
    if is_run(folder):
        raise UsageError(
            f"{path_text} is a run of this program, not a folder of texts",
            hint="give the file or folder that holds the texts; this run goes on with: "
            f"distillkit distill --run {shlex.quote(path_text)}",
        )
    folder = snapshot_folder(folder, path_text, notes)
    found = _folder_files(folder, notes, output_dir)
    _note_unread(found, notes)
    if not found.files:
        hint = next(
            iter(found.recognised.values()), f"known formats: {known_suffixes_text()}; rename plain text to .txt"
        )
        if found.lost_links:
            hint = "give the folder that the links lead to, or copy the files: cp -rL"
        left_out = "; ".join(line for line in notes.lines() if line != hint)
        raise UsageError(
            f"{path_text}: the folder holds no file that can be read" + (f" ({left_out})" if left_out else ""),
            hint=hint,
        )
    names = list(found.files)
    containers = {
        name: name[: -len(file.member) - 1]
        for name, file in found.files.items()
        if file.member is not None and name.endswith(f"/{file.member}")
    }
    card = folder / CARD
    configs = read_card(card) if card.is_file() else []
    if config is not None and not configs:
        raise UsageError(f"{path_text}: there is no configuration '{config}', because no {CARD} declares any")
    if configs:
        chosen = choose_config(configs, config, path_text)
        splits = config_files(chosen, names, containers)
        notes.remark(f"{CARD} says which files are read: its configuration '{chosen.name}'")
        return _with_splits(found.files, splits, card, notes)
    return _with_splits(found.files, assign_splits(names), None, notes)


def _with_splits(
    files: dict[str, StoredFile], found: SplitFiles, card: Path | None, notes: ReadingNotes
) -> SourceFiles:
    used = {name for names in found.splits.values() for name in names}
    if "all" not in found.splits:
        notes.remark(f"files by split: {describe_splits(found)}")
    if found.left_out:
        notes.left_out("in no split that is used", found.left_out)
    for remark in found.remarks:
        notes.remark(remark)
    return SourceFiles({name: file for name, file in files.items() if name in used}, found.splits, card)


def _folder_files(folder: Path, notes: ReadingNotes, output_dir: Path | None) -> _Found:
    root = folder.resolve()
    found = _Found()
    for path in walk_data(folder, output_dir, notes):
        name = path.relative_to(folder).as_posix()
        if file_kind(path) is None and path.suffix.lower() != ARCHIVE_SUFFIX:
            known = by_name(path.name)
            found.unknown.append(path.name)
            if known is not None:
                found.recognised.setdefault(
                    known.what, f"{name} is {known.what}: {known.todo.format(name=shlex.quote(from_here(str(path))))}"
                )
        elif path.is_symlink():
            found.links[name] = path
        elif path.is_file():
            found.files.update(_in_folder(path, name, notes))
    targets = {file.path.resolve() for file in found.files.values()}
    allowed = (root, *blob_folders(root))
    for name, path in sorted(found.links.items()):
        # Unlike Path.resolve, this does not raise on links that lead in a circle.
        target = Path(os.path.realpath(path))
        if not any(target.is_relative_to(place) for place in allowed) or not target.is_file():
            found.lost_links += 1
        elif target not in targets:
            targets.add(target)
            found.files.update(_in_folder(path, name, notes))
    notes.count("links that lead out of the folder or nowhere not followed", found.lost_links)
    found.files = dict(sorted(found.files.items()))
    return found


def _in_folder(path: Path, name: str, notes: ReadingNotes) -> dict[str, StoredFile]:
    """A file of a folder, or what is in it where it is an archive.

    Raises:
        UsageError: it cannot be read, or is not what its name says.
    """
    kind = file_kind(path)
    path = _behind_written_link(path, name)
    known = by_content(path, name, kind)
    if known is not None:
        raise refusal(name, known, from_here(str(path)))
    if not is_archive(path, name):
        # A name that ends with .zip alone tells no format.
        return {name: StoredFile(path, path.stat().st_size)} if kind is not None else {}
    return _members(path, name, name, notes, is_named=False)


def _note_unread(found: _Found, notes: ReadingNotes) -> None:
    if found.unknown:
        notes.count(f"files of other formats left out (such as {min(found.unknown)})", len(found.unknown))
    for remark in list(found.recognised.values())[:_NAMED]:
        notes.remark(remark)


def hash_files(source: SourceFiles) -> dict[str, str]:
    """The sha256 of every file, by its name; of an archive, its own. With the data card, where it says what is read.

    Raises:
        UsageError: one of them cannot be read.
    """
    paths = {name: file.path for name, file in source.files.items()}
    if source.card is not None:
        paths[CARD] = source.card
    known: dict[Path, str] = {}
    digests = {}
    for name, path in paths.items():
        try:
            known[path] = known.get(path) or sha256_of(path)
        except OSError as error:
            raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from error
        digests[name] = known[path]
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
    total = sum(source.files[name].size for name in names)
    with console.progress(f"reading {format_bytes(total)}", total=len(names), unit="files") as progress:
        for name in names:
            stored = source.files[name]
            file = DataFile(stored.path, name, options, section_bytes, notes, stored.member)
            yield from row_documents(read_rows(file), section_bytes, notes)
            progress.advance()
