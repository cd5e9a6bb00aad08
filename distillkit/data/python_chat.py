"""The data set `python-chat`: short questions about Python's standard library, answered by its own documentation.

Nothing is invented: what is asked is what a docstring is of, and the answer is how that docstring begins. It needs no
network, and is there to try conversations with.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator

from distillkit.console import Console
from distillkit.data.cleaning import text_digest
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.document import Document
from distillkit.data.python_docs import Documented, documented, library_modules, prose
from distillkit.errors import PreconditionError

# An answer is a few sentences: whole ones, at most so many characters.
_SHORTEST, _LONGEST = 40, 400
_QUESTIONS = {
    "module": ("What is Python's module `{}` for?", "Describe the module `{}` of Python's standard library."),
    "class": ("What is the class `{}` in Python?", "Explain Python's class `{}` in a few sentences."),
    "function": ("What does `{}` do in Python?", "Explain `{}` from Python's standard library."),
}
# Ends of sentences and paragraphs; "e.g. this" and "3.5" are none.
_SENTENCE_END = re.compile(r"(?<![.\s][A-Za-z])(?<!e\.g)(?<!i\.e)(?<!etc)[.!?](?=\s+[A-Z`'\"(]|\s*$)|\n\n")
_LOWER_START = re.compile(r"[^A-Z]")


def python_conversations(console: Console) -> Iterator[Document]:
    """A conversation of one question and its answer for each docstring that begins with sentences; private names are left
    out, as are docstrings that stand elsewhere too.

    Raises:
        PreconditionError: this Python carries no library sources.
    """
    seen: set[bytes] = set()
    for module, source in library_modules(console):
        dotted = module.replace("/", ".").removesuffix(".__init__")
        for item in documented(source):
            answer = _answer(item)
            digest = text_digest(answer) if answer is not None else b""
            if answer is None or digest in seen or _is_private(f"{dotted}.{item.name}"):
                continue
            seen.add(digest)
            name = f"{dotted}.{item.name}" if item.name else dotted
            conversation = Conversation((Turn("user", _question(item.kind, name)), Turn("assistant", answer)))
            yield Document(conversation.canonical(), f"python-chat:{name}", conversation=conversation)
    if not seen:
        raise PreconditionError(
            f"this Python ({sys.version.split()[0]}) carries no library sources",
            hint="give conversations of your own with --dataset-path",
        )


def _question(kind: str, name: str) -> str:
    choices = _QUESTIONS[kind]
    return choices[hashlib.sha256(name.encode()).digest()[0] % len(choices)].format(name)


def _is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split(".") if part)


def _answer(item: Documented) -> str | None:
    """The first sentences of a docstring; None where it begins with none: a signature, a list, a fragment."""
    text = prose(item.docstring)
    ends = [match.end() for match in _SENTENCE_END.finditer(text[: _LONGEST + 1]) if match.end() <= _LONGEST]
    # The last end of a sentence within reach; a paragraph that fits is whole.
    answer = " ".join(text[: ends[-1]].split()) if ends else ""
    if not _SHORTEST <= len(answer) <= _LONGEST or answer[-1] not in ".!?" or _LOWER_START.match(answer):
        return None
    return answer
