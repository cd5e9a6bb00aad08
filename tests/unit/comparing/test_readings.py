"""All models of a comparison are scored by the same bytes, whatever their tokens, start tokens and contexts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chat_templates import CHATML, FAMILIES, as_chat
from tiny_models import tiny_sentencepiece_tokenizer, tiny_tokenizer

from distillkit.comparing.readings import Reader, read_all
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.template_choice import choose_templates
from distillkit.data.text_encoder import TextEncoders, make_text_encoder

TEXT = "The old miller walked to the river, and the água was cold."
PARTS = [(0, TEXT), (2, "A second text.")]


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> list[Reader]:
    """Byte-level BPE, and SentencePiece."""
    tokenizers = tiny_tokenizer(), tiny_sentencepiece_tokenizer(tmp_path_factory.mktemp("foreign"))
    return [Reader(replace(make_text_encoder(one, None, 64, needs_bytes=True), exact=False)) for one in tokenizers]


def spelled(reader: Reader, ids: list[int]) -> bytes:
    table = reader.encoder.table
    assert table is not None
    return b"".join(table.pieces[index] or b"" for index in ids)


def test_all_score_every_byte(readers: list[Reader]) -> None:
    found = read_all(PARTS, readers)
    assert found.parts == PARTS
    assert found.unread == 0
    assert found.bytes_of(3).tolist() == [len(TEXT.encode()), 0, 14]
    for reader, texts in zip(readers, found.texts, strict=True):
        for text, (document, said) in zip(texts, PARTS, strict=True):
            ((first, last),) = text.spans
            assert (text.document, text.ids[0]) == (document, reader.encoder.start_id)
            assert (first, last) == (
                1,
                len(text.ids),
            )  # Those too that spell nothing: the space that SentencePiece adds.
            assert spelled(reader, list(text.ids[first:last])).strip() == said.encode()


def test_without_a_start_token_all_begin_where_each_has_a_boundary(readers: list[Reader]) -> None:
    startless = Reader(replace(readers[0].encoder, start_id=None))
    found = read_all([(0, TEXT)], [startless, readers[1]])
    ours, theirs = (texts[0] for texts in found.texts)
    assert ours.bytes == theirs.bytes < len(TEXT.encode())
    assert ours.spans[0][0] >= 1
    for reader, text in zip((startless, readers[1]), (ours, theirs), strict=True):
        first, last = text.spans[0]
        scored = spelled(reader, list(text.ids[first:last]))
        assert scored == TEXT.encode()[-text.bytes :]
    # It is the first such place: one boundary earlier is none of both, or nothing predicts it.
    ends = [set(reader.encoder.encode([TEXT])[0].ends.tolist()) for reader in readers]
    begin = len(TEXT.encode()) - ours.bytes
    assert min(end for end in ends[0] & ends[1] if end >= min(ends[0])) == begin


def test_a_text_that_does_not_fit_is_cut_for_all(readers: list[Reader]) -> None:
    long = "\n".join([TEXT] * 4)
    small = Reader(replace(readers[1].encoder, context=24))
    found = read_all([(0, long)], [readers[0], small])
    assert len(found.parts) > 4
    assert all(len(text.ids) <= 24 for text in found.texts[1])
    assert np.array_equal(*([text.bytes for text in texts] for texts in found.texts))
    assert "".join(" ".join(part for _, part in found.parts).split()) == "".join(long.split())


def test_what_a_model_cannot_read_is_left_out_and_counted(readers: list[Reader]) -> None:
    tiny = Reader(replace(readers[0].encoder, rows=10))
    found = read_all(PARTS, [readers[1], tiny])
    assert found.parts == []
    assert found.unread > 0


def test_of_conversations_the_answers_are_scored(tmp_path: Path) -> None:
    tokenizers = as_chat(tiny_tokenizer(600), CHATML), as_chat(tiny_tokenizer(400), FAMILIES["llama3"])
    readers = []
    for tokenizer in tokenizers:
        encoder = make_text_encoder(tokenizer, None, 200, needs_bytes=True)
        template = choose_templates(TextEncoders(encoder, encoder), None).student
        readers.append(Reader(encoder, ConversationReader(encoder, template)))
    turns = [
        Turn("user", "What is cold?"),
        Turn("assistant", " The river. "),
        Turn("user", "And?"),
        Turn("assistant", "Ice."),
    ]
    found = read_all([(0, Conversation(tuple(turns)).canonical())], readers)
    ours, theirs = (texts[0] for texts in found.texts)
    assert ours.bytes == theirs.bytes
    assert ours.bytes in (len("The river.Ice."), len(" The river. Ice."))
    for reader, text in zip(readers, (ours, theirs), strict=True):
        scored = b"|".join(spelled(reader, list(text.ids[first:last])) for first, last in text.spans)
        assert [part.strip() for part in scored.split(b"|")] == [b"The river.", b"Ice."]
