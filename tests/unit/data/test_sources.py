"""Named data sets: the registry, the documentation of Python, articles of row-wise sets."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from distillkit.console import Console
from distillkit.data.notes import ReadingNotes
from distillkit.data.python_docs import docstrings, prose
from distillkit.data.rows import Row, article_documents
from distillkit.data.sources import hub_entry, load_documents, local_path, text_budget
from distillkit.data.standard_sets import STANDARD_SETS, DatasetEntry
from distillkit.errors import PreconditionError, UsageError
from distillkit.settings.parameters import Parameters


def test_python_docs_are_plenty_clean_and_repeatable() -> None:
    config = Parameters(dataset="python-docs")
    first = load_documents(config, Console(quiet=True))
    documents = first.splits["all"]
    assert sum(len(document.text) for document in documents) > 1_500_000
    assert max(len(document.text.encode()) for document in documents) <= 8192
    assert any(document.origin == "python-docs:topics/assert" for document in documents)
    assert any(document.origin.startswith("python-docs:logging/__init__") for document in documents)
    assert not any(re.search(r"^\*{4,}$", document.text, re.MULTILINE) for document in documents)
    assert "antigravity" not in sys.modules
    assert load_documents(config, Console(quiet=True)).fingerprint == first.fingerprint


def test_python_docs_without_topics_and_without_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    library = tmp_path / "lib"
    library.mkdir()
    monkeypatch.setattr("distillkit.data.python_docs.sysconfig.get_path", lambda name: str(library))
    with pytest.raises(PreconditionError, match="neither help topics nor library sources") as caught:
        load_documents(Parameters(dataset="python-docs"), Console(quiet=True))
    assert "--dataset-path" in (caught.value.hint or "")
    (library / "module.py").write_text('"""' + "A docstring of some length. " * 5 + '"""\n')
    (library / "broken.py").write_text('"""' + "Not Python. " * 20 + '"""\n)')
    documents = load_documents(Parameters(dataset="python-docs"), Console(quiet=True))
    assert [document.origin for document in documents.splits["all"]] == ["python-docs:module"]
    assert documents.notes == ["this Python has no help topics: docstrings alone are used"]


def test_topics_alone_are_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("pydoc_data.topics")
    module.topics = {"one": "One\n***\n\nThe topic.\n"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)
    monkeypatch.setattr("distillkit.data.python_docs.sysconfig.get_path", lambda name: str(tmp_path / "none"))
    documents = load_documents(Parameters(dataset="python-docs"), Console(quiet=True)).splits["all"]
    assert [document.text for document in documents] == ["One\n***\n\nThe topic."]


def test_prose_drops_underlines_and_sessions_only() -> None:
    text = "Title\n=====\n\nWords here.\n\n>>> code()\n1\n\n   Indented -- kept.\n"
    assert prose(text) == "Title\n\nWords here.\n\n   Indented -- kept."


def test_docstrings_come_in_the_order_of_the_source() -> None:
    body = "x" * 60
    source = (
        f'"""M {body}"""\nclass A:\n  """A {body}"""\n  def f(self):\n    """f {body}"""\ndef g():\n  """g {body}"""\n'
    )
    assert [text[0] for text in docstrings(source.encode())] == ["M", "A", "f", "g"]
    assert list(docstrings(b"def broken(")) == []


def test_rows_of_an_article_make_one_document_without_headings() -> None:
    rows = ["", " = First title = \n", "", " Line one . \n", " = = Section = = \n", " Line two = more . \n"]
    rows += [" = Second = \n", " Other line . \n"]
    notes = ReadingNotes()
    documents = list(article_documents([Row(text, f"w:{n}") for n, text in enumerate(rows, 1)], 8192, notes))
    assert [(document.text, document.origin) for document in documents] == [
        ("Line one .\nLine two = more .", "w:4"), ("Other line .", "w:8"),
    ]  # fmt: skip
    assert notes.lines() == ["blank rows left out: 2", "headings left out: 3"]


def test_standard_names_are_hub_entries_and_the_text_column_can_be_overridden() -> None:
    assert hub_entry(Parameters(dataset="wikitext")) == STANDARD_SETS["wikitext"]
    assert hub_entry(Parameters(dataset="pokemon")).column == "text_en"
    assert hub_entry(Parameters(dataset="pokemon", text_column="text_zh")).column == "text_zh"
    assert hub_entry(Parameters(dataset="owner/name")) == DatasetEntry("owner/name")
    assert hub_entry(Parameters(dataset="imdb")).id == "imdb"
    assert hub_entry(Parameters(dataset="o/n:big@abc")) == DatasetEntry("o/n", config="big", revision="abc")


def test_own_entries_are_known_and_win_over_standard_ones() -> None:
    own = {"stories": {"id": "o/stories", "column": "story", "splits": {"train": "all"}}, "wikitext": {"id": "o/w"}}
    assert hub_entry(Parameters(dataset="stories", datasets=own)) == DatasetEntry(
        "o/stories", column="story", splits={"train": "all"}
    )
    assert hub_entry(Parameters(dataset="wikitext", datasets=own)).id == "o/w"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("o/n", "a mapping is needed"),
        ({}, "the key 'id' is missing"),
        ({"id": 5}, "datasets.mine.id: text is needed, not 5"),
        ({"id": "o/n", "colunm": "text"}, "unknown key 'colunm'"),
        ({"id": "o/n", "splits": "train"}, "a mapping is needed"),
        ({"id": "o/n", "splits": {"training": "train"}}, "unknown split 'training'"),
        ({"id": "o/n", "splits": {"test": "test"}}, "the split 'train' is missing"),
        ({"id": "o/n", "articles": "yes"}, "true or false is needed"),
    ],
)
def test_malformed_own_entries_are_refused(values: object, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        hub_entry(Parameters(dataset="mine", datasets={"mine": values}))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("wikitxt", "unknown data set 'wikitxt'", "did you mean 'wikitext'"),
        ("two words", "neither a data set nor a path nor a Hub id", "known: wikitext, pokemon, python-docs"),
        ("a/b/c", "neither a data set nor a path nor a Hub id", "or a Hub id"),
    ],
)
def test_names_that_are_nothing_are_refused(name: str, words: str, hint: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        hub_entry(Parameters(dataset=name))
    assert hint in (caught.value.hint or "")


def test_what_looks_like_a_path_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wikitext").mkdir()
    for name in ("./x", "../x", "~/x", "/x", "x.txt", "o/x.jsonl.gz"):
        assert local_path(Parameters(dataset=name)) == name
    for name in ("wikitext", "python-docs", "owner/name", "imdb"):
        assert local_path(Parameters(dataset=name)) is None
    assert local_path(Parameters(dataset="wikitext", dataset_path="mine.txt")) == "mine.txt"


def test_the_budget_covers_what_the_examples_can_need() -> None:
    assert text_budget(Parameters()) == 64 << 20
    large = Parameters(sample_size=50_000, max_length=4096)
    assert text_budget(large) >= 50_000 * 4096 * 8
