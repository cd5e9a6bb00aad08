"""Documents that are held compressed are the same documents."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distillkit.data import sampling
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.document import Document
from distillkit.data.notes import ReadingNotes
from distillkit.data.packed import PackedDocument, pack, unpack
from distillkit.data.sampling import bounded_sample

TALK = Conversation((Turn("system", ""), Turn("user", 'line\nbreak "and" \u2028 mark'), Turn("assistant", "Grüße 🙂")))


@pytest.mark.parametrize("text", ["plain", "Grüße — 漢字 🙂\n\ttabs", "a lone \ud800 half", "x" * 100_000])
def test_texts_come_back(text: str) -> None:
    assert unpack(pack(text)) == text


def test_prose_takes_less_than_half() -> None:
    text = " ".join(
        f"Chapter {index} told of the quarry and of the old schoolmaster's fiddles." for index in range(500)
    )
    assert len(pack(text)) < len(text) / 2


def test_a_packed_document_is_what_it_was() -> None:
    for document in (
        Document("a text", "here:1", False),
        Document(TALK.canonical(), "there:2", conversation=TALK),
    ):
        packed = PackedDocument.of(document)
        for name in ("text", "origin", "ends_text", "conversation"):
            assert getattr(packed, name) == getattr(document, name)
        changed = replace(packed, origin="elsewhere")
        assert isinstance(changed, PackedDocument)
        assert (changed.text, changed.conversation) == (document.text, document.conversation)


def test_a_large_sample_is_packed_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document(f"text number {index} " * 5, f"file:{index}") for index in range(200)]
    plain = bounded_sample(iter(documents), 30_000, 7, "all", ReadingNotes())
    monkeypatch.setattr(sampling, "_PLAIN_BYTES", 10_000)
    packed = bounded_sample(iter(documents), 30_000, 7, "all", ReadingNotes())
    assert {type(document) for document in packed} == {PackedDocument}
    assert {type(document) for document in plain} == {Document}
    assert [document.text for document in packed] == [document.text for document in plain]
    assert len(plain) < len(documents)
