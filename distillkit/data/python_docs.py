"""The data set `python-docs`: the documentation that every Python interpreter carries.

The language reference topics behind `help()` and the docstrings of the standard library: about 1.7 MB of English prose
that needs no network. Docstrings are parsed out of the sources; no module is imported for them. The texts are the
same for the same interpreter, and differ a little between Python versions.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import NamedTuple

from distillkit.console import Console
from distillkit.data.cleaning import clean_text, text_digest
from distillkit.data.document import Document
from distillkit.data.notes import ReadingNotes
from distillkit.data.rows import section_documents
from distillkit.errors import PreconditionError
from distillkit.interrupts import check_interrupted

# Tests, bundled applications, generated tables and what does not belong to the library itself.
_SKIPPED_FOLDERS = frozenset(
    ("__pycache__", "ensurepip", "encodings", "idlelib", "lib2to3", "pydoc_data", "site-packages", "dist-packages",
     "test", "tests", "turtledemo")
)  # fmt: skip
# Parsing takes the time: sources with less than one docstring quote in so many bytes are not worth it.
_BYTES_PER_QUOTE = 2000
_SHORTEST_DOCSTRING = 60
_UNDERLINE = re.compile(r"^[ \t]*([*=\-~^\"#+])\1{3,}[ \t]*\n", re.MULTILINE)
_DOCTEST = re.compile(r"^[ \t]*>>> ")


def interpreter() -> str:
    """The interpreter that the texts depend on: "CPython 3.12.4"."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def prose(text: str) -> str:
    """`text` without heading underlines and without paragraphs that are interactive sessions."""
    text = _UNDERLINE.sub("", text)
    paragraphs = re.split(r"\n(?:[ \t]*\n)+", text)
    return clean_text("\n\n".join(paragraph for paragraph in paragraphs if not _DOCTEST.match(paragraph)))


class Documented(NamedTuple):
    """A docstring, and what it is of.

    Attributes:
        kind: "module", "class" or "function".
        name: inside its module, dotted; "" for the module itself.
    """

    kind: str
    name: str
    docstring: str


def documented(source: bytes) -> Iterator[Documented]:
    """A module, its classes and functions that have a docstring, in the order of the source; none if it is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    nodes: list[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]] = [("", tree)]
    while nodes:
        name, node = nodes.pop()
        docstring = ast.get_docstring(node, clean=False)
        if docstring and len(docstring) >= _SHORTEST_DOCSTRING:
            kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
            yield Documented(kind, name, cleandoc(docstring))
        nodes.extend(
            (f"{name}.{child.name}" if name else child.name, child)
            for child in reversed(node.body)
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        )


def docstrings(source: bytes) -> Iterator[str]:
    """The docstrings of `documented`."""
    return (item.docstring for item in documented(source))


def python_documents(section_bytes: int, notes: ReadingNotes, console: Console) -> Iterator[Document]:
    """The topics, then the docstrings of one module after another, long ones cut into sections.

    Raises:
        PreconditionError: this Python was installed without both.
    """
    yielded = False
    for document in _topics(section_bytes):
        yielded = True
        yield document
    if not yielded:
        notes.remark("this Python has no help topics: docstrings alone are used")
    seen: set[bytes] = set()
    for name, source in library_modules(console):
        for document in _module_documents(source, name, section_bytes, seen):
            yielded = True
            yield document
    if not yielded:
        raise PreconditionError(
            f"this Python ({sys.version.split()[0]}) carries neither help topics nor library sources",
            hint="give texts of your own with --dataset-path",
        )


def library_modules(console: Console) -> Iterator[tuple[str, bytes]]:
    """The modules of the standard library that have docstrings worth reading: "json/decoder", and the source."""
    library = Path(sysconfig.get_path("stdlib"))
    sources = sorted(_library_sources(library))
    with console.progress("reading Python's documentation", total=len(sources), unit="modules") as progress:
        for path in sources:
            check_interrupted()
            with contextlib.suppress(OSError):
                source = path.read_bytes()
                if source.count(b'"""') * _BYTES_PER_QUOTE >= len(source):
                    yield path.relative_to(library).with_suffix("").as_posix(), source
            progress.advance()


def _topics(section_bytes: int) -> Iterator[Document]:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return
    for name in sorted(topics):
        yield from section_documents(prose(topics[name]), f"python-docs:topics/{name}", section_bytes)


def _library_sources(folder: Path) -> Iterator[Path]:
    """Every module below `folder`, except in folders that are skipped."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.suffix == ".py" and entry.is_file():
            yield entry
        elif entry.is_dir() and entry.name not in _SKIPPED_FOLDERS and entry.name.isidentifier():
            yield from _library_sources(entry)


def _module_documents(source: bytes, name: str, section_bytes: int, seen: set[bytes]) -> Iterator[Document]:
    """The docstrings of one module; those already `seen` elsewhere are left out."""
    texts = []
    for docstring in docstrings(source):
        text = prose(docstring)
        digest = text_digest(text)
        if len(text) >= _SHORTEST_DOCSTRING and digest not in seen:
            seen.add(digest)
            texts.append(text)
    yield from section_documents("\n\n".join(texts), f"python-docs:{name}", section_bytes)
