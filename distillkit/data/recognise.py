"""What a file is that is not read, and what to do about it: by its name, and by its first bytes whatever its name says."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from distillkit.data.compression import ARCHIVE_SUFFIX, archive_members, packing_of, read_head, strip_packing
from distillkit.errors import UsageError

# The block of a tar archive that tells what it is.
_HEAD_BYTES = 512
_ONE_SHEET = "save the sheet as .csv"
_PAGES = "convert it: pandoc -t plain {name} -o texts.txt"
# pandoc does not read these.
_PLAIN = "save it as plain text (.txt) in the program that opens it"


class Recognised(NamedTuple):
    """What a file is ("a PDF file"), and what to do to have its texts read; `{name}` stands for its name."""

    what: str
    todo: str


_PDF = Recognised("a PDF file", "extract its text: pdftotext {name} texts.txt")
_TAR = Recognised("a tar archive", "unpack it, and give the folder: tar -xf {name}")
_SHEET = Recognised("a spreadsheet", _ONE_SHEET)
_OFFICE = Recognised("a word processor's document", _PAGES)
_OLD_OFFICE = Recognised("a document of an office program", _PLAIN)
_BOOK = Recognised("an e-book", _PAGES)
_OTHER_BOOK = Recognised("an e-book", "convert it: ebook-convert {name} texts.txt")
_WEB_PAGE = Recognised("a web page", _PAGES)
_SAVED_PAGE = Recognised("a web page", _PLAIN)
_XML = Recognised("an XML file", "write the texts of its elements to a .jsonl file")
_SQLITE = Recognised(
    "an SQLite database", 'export a table: sqlite3 -header -csv {name} "select text from TABLE" > texts.csv'
)
_PICKLE = Recognised(
    "a pickle, which can run code when it is read", "load it where it was made, and save it as .parquet"
)
_TFRECORD = Recognised("a TFRecord file", "convert it to .parquet or .jsonl with the library that made it")
_HDF5 = Recognised("an HDF5 file", "export its texts: pandas.read_hdf(…).to_parquet('texts.parquet')")
_NUMPY = Recognised("a NumPy file", "write its texts to a .jsonl file")
_ORC = Recognised("an ORC file", "convert it: pyarrow.orc.read_table(…), then pyarrow.parquet.write_table(…)")
_AVRO = Recognised("an Avro file", "convert it to .parquet or .jsonl")
_NOTEBOOK = Recognised("a Jupyter notebook", "convert it: jupyter nbconvert --to markdown {name}")
_MARKUP = Recognised("running text with markup", "rename it to .txt to learn it with its markup")
_LOG = Recognised("a log", "rename it to .txt if its lines are what is to be learnt")
_OLE = Recognised("a file of an old office program", f"{_PLAIN}, a table as .csv")
_SEVEN_ZIP = Recognised("an archive", "unpack it, and give the folder")
_LFS = Recognised("a Git LFS pointer, not the data themselves", "fetch them in the folder it is from: git lfs pull")
_BY_SUFFIX = {
    ".xlsx": _SHEET, ".xls": _SHEET, ".xlsm": _SHEET, ".ods": _SHEET, ".numbers": _SHEET,
    ".docx": _OFFICE, ".doc": _OLD_OFFICE, ".odt": _OFFICE, ".rtf": _OFFICE, ".pptx": _OLD_OFFICE, ".pages": _OLD_OFFICE,
    ".epub": _BOOK, ".mobi": _OTHER_BOOK, ".azw3": _OTHER_BOOK, ".fb2": _BOOK, ".pdf": _PDF, ".html": _WEB_PAGE, ".htm": _WEB_PAGE,
    ".xhtml": _WEB_PAGE, ".mhtml": _SAVED_PAGE, ".xml": _XML, ".db": _SQLITE, ".sqlite": _SQLITE, ".sqlite3": _SQLITE,
    ".pkl": _PICKLE, ".pickle": _PICKLE, ".joblib": _PICKLE, ".pt": _PICKLE, ".pth": _PICKLE,
    ".tfrecord": _TFRECORD, ".tfrecords": _TFRECORD, ".tar": _TAR, ".tgz": _TAR, ".tbz2": _TAR, ".txz": _TAR, ".tzst": _TAR,
    ".7z": _SEVEN_ZIP, ".rar": _SEVEN_ZIP, ".h5": _HDF5, ".hdf5": _HDF5, ".npy": _NUMPY, ".npz": _NUMPY, ".orc": _ORC,
    ".avro": _AVRO, ".ipynb": _NOTEBOOK, ".rst": _MARKUP, ".tex": _MARKUP, ".org": _MARKUP, ".adoc": _MARKUP, ".log": _LOG,
}  # fmt: skip
# TFRecord files of `tensorflow_datasets` are called "name-train.tfrecord-00000-of-00001".
_TFRECORD_NAME = re.compile(r"\.tfrecords?(-\d+-of-\d+)?$")
_BY_MAGIC = (
    (b"%PDF-", _PDF),
    (b"SQLite format 3\0", _SQLITE),
    (b"\x89HDF\r\n\x1a\n", _HDF5),
    (b"\x93NUMPY", _NUMPY),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OLE),
    (b"{\\rtf", _OFFICE),
    (b"7z\xbc\xaf\x27\x1c", _SEVEN_ZIP),
    (b"Rar!\x1a\x07", _SEVEN_ZIP),
    (b"Obj\x01", _AVRO),
    (b"version https://git-lfs.github.com/spec/", _LFS),
)
# What is read, under another name; such a file ends as it begins, and a text that begins so does not.
_READ = (
    (b"PAR1", "parquet", "a Parquet file"),
    (b"ARROW1", "arrow", "an Arrow file"),
    (b"FEA1", "feather", "a Feather file"),
)
_TAR_MARKS, _TAR_MARK_AT = (b"ustar\0", b"ustar  \0"), 257
_PICKLE_HEAD = re.compile(rb"\x80[\x02-\x05][\x80-\xff\]}()cX\x8c\x95]")
_PAGE_HEAD = re.compile(rb"\s*(<!--.*?-->\s*)*(<!doctype html|<html)", re.IGNORECASE | re.DOTALL)
# The reader of JSON tells by itself what is none.
_TABLES = ("csv", "tsv", "parquet", "arrow", "feather")
_ARROW_KINDS = ("arrow", "feather")


def by_name(name: str) -> Recognised | None:
    """What the name of a file tells that is of no format that is read; None if nothing."""
    if _TFRECORD_NAME.search(strip_packing(name).lower()):
        return _TFRECORD
    suffix = Path(strip_packing(name)).suffix.lower() or Path(name).suffix.lower()
    return _BY_SUFFIX.get(suffix)


def by_content(path: Path, name: str, kind: str | None) -> Recognised | None:
    """What the first bytes of a file tell that contradicts its name; None if nothing.

    Args:
        kind: the format that its name tells, None for none that is read.

    Raises:
        UsageError: it cannot be read.
    """
    head = read_head(path, name, _HEAD_BYTES)
    for magic, known in _BY_MAGIC:
        if head.startswith(magic):
            # These programs had one container for documents and tables; the name tells which.
            return (by_name(name) or known) if known is _OLE else known
    for magic, real, what in _READ:
        if head.startswith(magic) and real != kind and not {real, kind} <= {*_ARROW_KINDS} and _ends_with(path, magic):
            return Recognised(what, f"rename it to .{real}")
    if head.startswith(_TAR_MARKS, _TAR_MARK_AT):
        return _TAR
    if packing_of(head) == ARCHIVE_SUFFIX:
        return _office_file(path, name)
    if kind in _TABLES and _PAGE_HEAD.match(head):
        return Recognised(f"a web page, not {kind.upper()}", "fetch the file again: what was saved is a page about it")
    # In a text the first of these bytes cannot begin a character.
    return _PICKLE if _PICKLE_HEAD.match(head) else None


def _ends_with(path: Path, ending: bytes) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - len(ending)))
        return size > 2 * len(ending) and stream.read() == ending


def _office_file(path: Path, name: str) -> Recognised | None:
    """What a zip archive is that is no archive of data to its user."""
    members = {member.name for member in archive_members(path, name)}
    if "[Content_Types].xml" in members:
        return _SHEET if any(member.startswith("xl/") for member in members) else _OFFICE
    if "mimetype" in members:
        return _BOOK if any(member.endswith(".opf") for member in members) else _OFFICE
    if any(member.endswith("data.pkl") for member in members):
        return _PICKLE
    return _NUMPY if members and all(member.endswith(".npy") for member in members) else None


def refusal(shown: str, known: Recognised, path: str | None = None) -> UsageError:
    """The error for a recognised file.

    Args:
        shown: what the file is called.
        path: the file as a command takes it; None where it is called so.
    """
    return UsageError(f"{shown} is {known.what}", hint=known.todo.format(name=shlex.quote(path or shown)))
