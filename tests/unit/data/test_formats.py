"""A format of files is one function and one registration: everything else follows from the table."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from distillkit import registry
from distillkit.console import Console
from distillkit.data.formats import DataFile, file_kind, known_suffixes
from distillkit.data.rows import Row
from distillkit.data.sources import check_source, load_documents, local_path
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters


def read_ini(file: DataFile) -> Iterator[Row]:
    """`name = text` on each line."""
    with file.open() as stream:
        for number, line in enumerate(stream.read().decode("utf-8").splitlines(), 1):
            name, separator, text = line.partition(" = ")
            if not separator:
                raise UsageError(f"{file.name}, line {number}: no ' = '")
            if file.text_column in (None, name):
                yield Row(text, f"{file.name}:{number}")


@pytest.fixture
def ini(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("a_users_module")
    vars(module)["read_ini"] = read_ini
    monkeypatch.setitem(sys.modules, "a_users_module", module)
    monkeypatch.setitem(registry.DATA_FORMATS, ".ini", "a_users_module:read_ini")


def load(path: Path, **settings: str) -> dict[str, str]:
    """Texts by origin."""
    documents = load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))  # type: ignore[arg-type]
    return {document.origin: document.text for document in documents.splits["all"]}


@pytest.mark.usefixtures("ini")
def test_a_registered_format_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.INI").write_text("de = Ein Satz.\nen = A sentence.\n")
    (tmp_path / "b.ini.gz").write_bytes(gzip.compress(b"en = Another one.\n"))
    (tmp_path / "c.txt").write_text("Running text.")
    assert load(tmp_path / "a.INI") == {"a.INI:1": "Ein Satz.", "a.INI:2": "A sentence."}
    assert load(tmp_path, text_column="en") == {
        "a.INI:2": "A sentence.", "b.ini.gz:1": "Another one.", "c.txt:1": "Running text.",
    }  # fmt: skip
    (tmp_path / "b.ini.gz").write_bytes(gzip.compress(b"en\n"))
    with pytest.raises(UsageError, match=r"b\.ini\.gz, line 1: no ' = '"):
        load(tmp_path)


@pytest.mark.usefixtures("ini")
def test_a_registered_format_is_known_everywhere(tmp_path: Path) -> None:
    assert file_kind(Path("texts.ini.gz")) == "ini"
    assert known_suffixes()[-1] == ".ini"
    # A name that ends like a file is a path, even where there is no such file.
    assert local_path(Parameters(dataset="texts.ini")) == "texts.ini"
    (tmp_path / "a.xyz").write_text("?")
    with pytest.raises(UsageError, match="unknown format") as raised:
        check_source(Parameters(dataset_path=str(tmp_path / "a.xyz")))
    assert ".feather, .ini (each also as .gz, .bz2, .xz, .zst, .zip)" in (raised.value.hint or "")


def test_an_unregistered_format_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.ini").write_text("de = Ein Satz.\n")
    (tmp_path / "b.txt").write_text("Running text.")
    assert load(tmp_path) == {"b.txt:1": "Running text."}


@pytest.mark.parametrize("suffix", list(registry.DATA_FORMATS))
def test_every_registration_names_a_reader(suffix: str) -> None:
    assert callable(registry.resolve(registry.DATA_FORMATS, suffix))
