"""The built-in conversations: what is asked exists, and the answer is what its documentation says first."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from distillkit.console import Console
from distillkit.data.document import Document
from distillkit.data.python_chat import python_conversations

_MODULES = ("textwrap", "bisect", "calendar", "string", "shelve")
_NAME = re.compile(r"`([^`]+)`")


@pytest.fixture(scope="module")
def conversations() -> list[Document]:
    return list(python_conversations(Console(quiet=True)))


def test_there_are_enough_and_each_is_a_question_and_its_answer(conversations: list[Document]) -> None:
    assert len(conversations) > 1000
    for document in conversations:
        assert document.conversation is not None
        question, answer = document.conversation.turns
        assert (question.role, answer.role) == ("user", "assistant")
        assert document.text == document.conversation.canonical()
        assert 40 <= len(answer.text) <= 400
        assert answer.text[0].isupper()
        assert answer.text[-1] in ".!?"
    assert len({document.text for document in conversations}) == len(conversations)


def test_an_answer_is_how_the_documentation_begins(conversations: list[Document]) -> None:
    checked = 0
    for document in conversations:
        assert document.conversation is not None
        question, answer = document.conversation.turns
        (name,) = _NAME.findall(question.text)
        module, _, rest = name.partition(".")
        if module not in _MODULES:
            continue
        thing = importlib.import_module(module)
        for part in filter(None, rest.split(".")):
            thing = inspect.getattr_static(thing, part)
        doc = " ".join((inspect.getdoc(thing) or "").split())
        # Underlined headings are no sentences and are left out on the way.
        assert doc.startswith(answer.text), name
        checked += 1
    assert checked > 40


def test_private_names_are_not_asked_for(conversations: list[Document]) -> None:
    names = [
        _NAME.findall(document.conversation.turns[0].text)[0] for document in conversations if document.conversation
    ]
    assert not [name for name in names if any(part.startswith("_") for part in name.split("."))]


def test_the_same_interpreter_gives_the_same(conversations: list[Document]) -> None:
    assert list(python_conversations(Console(quiet=True))) == conversations
