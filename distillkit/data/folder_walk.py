"""What of a folder may be data: every file but those that are about the data, and those of programs and of runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distillkit.data.notes import ReadingNotes
from distillkit.errors import UsageError

_RUN_RECORD = "manifest.json"
_RUN_KEYS = {"distillkit", "schema_version", "stages"}
_VENV_RECORD = "pyvenv.cfg"
_PROGRAM_FOLDERS = ("node_modules", "site-packages")
_PACKAGE_RECORDS = (".egg-info", ".dist-info")
# Names of cards and licences, with or without a suffix ("README_zh.md", "LICENSE-2.0.txt"). What could be the title of a
# text as well is one of them in capitals only, as is the custom.
_CARD = re.compile(
    r"((?i:readme|licen[sc]es?|data_?card|dataset_?card|model_?card|code_of_conduct)|"
    r"COPYING|NOTICE|CITATIONS?|CHANGELOG|CHANGES|CONTRIBUTING|CONTRIBUTORS|AUTHORS|SECURITY|ACKNOWLEDGE?MENTS?)"
    r"([-_.][A-Za-z]{2}([-_]([A-Za-z]{2}|Han[st]|han[st]))?)?([-_.](?i:mit|apache|bsd|gpl|cc|third[-_]party)[-_0-9A-Za-z]*)?"
    r"([-_.]v?[0-9]+(\.[0-9]+)*)?"
    r"(\.(?i:md|markdown|txt|text|rst|cff|bib|json))?"
)
_RECORDS = re.compile(
    r"config\.json|dataset_infos?\.json|dataset_dict\.json|state\.json|requirements([-_.][a-z0-9]+)?\.txt|robots\.txt|cmakelists\.txt|"
    r"package(-lock)?\.json|tsconfig\.json|croissant\.json|checksums?\.txt|(md5|sha1|sha256|sha512)sums?(\.txt)?"
)
# The captions of pictures are called so, hence it is data where it is all there is.
_METADATA = re.compile(r"metadata\.(json|jsonl|csv|parquet)")
_MODEL_RECORDS = ("tokenizer.json", "tokenizer_config.json", "adapter_config.json")
_MODEL_FILES = re.compile(
    r"vocab\.txt|merges\.txt|(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|"
    r"preprocessor_config|processor_config|trainer_state|adapter_config|chat_template|quant(ize|ization)_config|modules|"
    r"(all|train|eval)_results|.*\.index)\.json"
)
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx")
_SAVED_STATE = "state.json"
_DATASET_RECORD = "dataset_info.json"
# What `Dataset.map` keeps beside a data set.
_MAP_CACHE = re.compile(r"(cache|tmp)[-_]?[0-9a-z_]*\.arrow")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory of this program: it has a manifest with the keys of one."""
    try:
        with (folder / _RUN_RECORD).open("rb") as stream:
            content = json.loads(stream.read(1 << 26))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= _RUN_KEYS


def walk_data(folder: Path, output_dir: Path | None, notes: ReadingNotes) -> Iterator[Path]:
    """The files below a folder that may be data, whatever their formats.

    Hidden files and folders, runs and their output directory, virtual environments and other folders of programs, the files
    of models, and cards, licences and records beside the data are left out, and noted. Links to folders are not followed.

    Args:
        output_dir: where this run lies or will lie; it is left out where it lies inside the folder.

    Raises:
        UsageError: a folder cannot be read.
    """
    outputs = None if output_dir is None else Path(os.path.realpath(output_dir))
    records: list[str] = []
    metadata: list[Path] = []
    data = 0
    for parent_text, folders, names in os.walk(folder, onerror=_refuse_unreadable):
        parent = Path(parent_text)
        folders[:] = _entered(parent, folders, outputs, notes)
        rules = _FolderRules(parent, names, is_own=parent == folder)
        for name in sorted(names):
            path = parent / name
            shown = path.relative_to(folder).as_posix()
            if name.startswith("."):
                notes.count("hidden files and folders left out")
            elif rules.is_of_model(name):
                notes.count("files of models left out")
            elif _is_record(name):
                records.append(shown)
            elif rules.is_cached(name):
                notes.count("files that `datasets` keeps for itself left out")
            elif _METADATA.fullmatch(name.lower()):
                metadata.append(path)
            else:
                data += 1
                yield path
    if metadata and data:
        records += [path.relative_to(folder).as_posix() for path in metadata]
    else:
        yield from metadata
    _note_records(records, notes)


def without_records(names: Sequence[str], shown: str, notes: ReadingNotes) -> set[str]:
    """Those files of an archive that may be data, by the rules for folders: no cards, licences and records, which are noted.

    Args:
        names: in the archive, "/" between folders.
        shown: the archive, for the note.
    """
    last = {name: name.rpartition("/")[2] for name in names}
    records = {name for name in names if _is_record(last[name])}
    metadata = {name for name in names if _METADATA.fullmatch(last[name].lower())}
    if len(records) + len(metadata) < len(last):
        records |= metadata
    _note_records([f"{shown}/{name}" for name in records], notes)
    return {*names} - records


def _is_record(name: str) -> bool:
    return _CARD.fullmatch(name) is not None or _RECORDS.fullmatch(name.lower()) is not None


def _note_records(records: Sequence[str], notes: ReadingNotes) -> None:
    if records:
        notes.left_out("no data", sorted(records))


def _refuse_unreadable(error: OSError) -> None:
    raise UsageError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _entered(parent: Path, folders: list[str], outputs: Path | None, notes: ReadingNotes) -> list[str]:
    """The folders to look into, in order."""
    entered = []
    for name in sorted(folders):
        path = parent / name
        if name.startswith("."):
            notes.count("hidden files and folders left out")
        elif path.is_symlink():
            notes.count("links to folders not followed")
        elif outputs is not None and Path(os.path.realpath(path)) == outputs:
            notes.remark(f"the output directory is no data: {path} left out")
        elif is_run(path):
            notes.count("runs of this program left out")
        elif _belongs_to_program(path):
            notes.count("folders of programs left out (virtual environments, caches, packages)")
        else:
            entered.append(name)
    return entered


def _belongs_to_program(folder: Path) -> bool:
    name = folder.name.lower()
    if name.startswith("__") or name in _PROGRAM_FOLDERS or name.endswith(_PACKAGE_RECORDS):
        return True
    return (folder / _VENV_RECORD).is_file()


class _FolderRules:
    """What the files of one folder say of one another."""

    def __init__(self, folder: Path, names: list[str], *, is_own: bool) -> None:
        """`is_own`: whether it is the folder that the user named, where texts may lie beside a model."""
        lower = {name.lower() for name in names}
        has_weights = any(name.endswith(_WEIGHTS) for name in lower)
        self._is_model = any(name in lower for name in _MODEL_RECORDS) or ("config.json" in lower and has_weights)
        self._shards = _saved_shards(folder / _SAVED_STATE) if _SAVED_STATE in names else None
        self._is_own = is_own
        self._is_prepared = _DATASET_RECORD in names

    def is_of_model(self, name: str) -> bool:
        name = name.lower()
        is_any_json = name.endswith(".json") and not self._is_own
        return self._is_model and (is_any_json or _MODEL_FILES.fullmatch(name) is not None)

    def is_cached(self, name: str) -> bool:
        if not name.endswith(".arrow"):
            return False
        if self._shards is not None:
            return name not in self._shards
        return self._is_prepared and _MAP_CACHE.fullmatch(name) is not None


def _saved_shards(state: Path) -> set[str] | None:
    """The files of a data set that `save_to_disk` wrote; None if that is none of its records."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content: Any = json.loads(state.read_bytes())
        files = content.get("_data_files") if isinstance(content, dict) else None
        if isinstance(files, list):
            return {str(file.get("filename")) for file in files if isinstance(file, dict)}
    return None
