"""The data set `python-docs`: the documentation that every Python interpreter carries.

The language reference topics behind `help()` and the docstrings of the standard library: about 1.7 MB of English prose
that needs no network. Docstrings are parsed out of the sources; no module is imported for them. The texts are the
same for the same interpreter, and differ a little between Python versions.
"""

from __future__ import annotations

import ast
import importlib
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

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


def python_docs_fingerprint() -> dict[str, str]:
    """The interpreter that the texts depend on."""
    return {"python-docs": f"{platform.python_implementation()} {platform.python_version()}"}


def prose(text: str) -> str:
    """`text` without heading underlines and without paragraphs that are interactive sessions."""
    text = _UNDERLINE.sub("", text)
    paragraphs = re.split(r"\n(?:[ \t]*\n)+", text)
    return clean_text("\n\n".join(paragraph for paragraph in paragraphs if not _DOCTEST.match(paragraph)))


def docstrings(source: bytes) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, in the order of the source; none if it is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    nodes: list[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = [tree]
    while nodes:
        node = nodes.pop()
        docstring = ast.get_docstring(node, clean=False)
        if docstring and len(docstring) >= _SHORTEST_DOCSTRING:
            yield cleandoc(docstring)
        nodes.extend(
            child
            for child in reversed(node.body)
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        )


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
    library = Path(sysconfig.get_path("stdlib"))
    sources = sorted(_library_sources(library))
    seen: set[bytes] = set()
    with console.progress("reading Python's documentation", total=len(sources), unit="modules") as progress:
        for path in sources:
            check_interrupted()
            name = path.relative_to(library).with_suffix("").as_posix()
            for document in _module_documents(path, name, section_bytes, seen):
                yielded = True
                yield document
            progress.advance()
    if not yielded:
        raise PreconditionError(
            f"this Python ({sys.version.split()[0]}) carries neither help topics nor library sources",
            hint="give texts of your own with --dataset-path",
        )


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


def _module_documents(path: Path, name: str, section_bytes: int, seen: set[bytes]) -> Iterator[Document]:
    """The docstrings of one module; those already `seen` elsewhere are left out."""
    try:
        source = path.read_bytes()
    except OSError:
        return
    if source.count(b'"""') * _BYTES_PER_QUOTE < len(source):
        return
    texts = []
    for docstring in docstrings(source):
        text = prose(docstring)
        digest = text_digest(text)
        if len(text) >= _SHORTEST_DOCSTRING and digest not in seen:
            seen.add(digest)
            texts.append(text)
    yield from section_documents("\n\n".join(texts), f"python-docs:{name}", section_bytes)
