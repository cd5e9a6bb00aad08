"""Names of special tokens: what is decided for a run, and what it is decided by."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizer_makers import byte_level
from tokenizers import processors

from distillkit.data.document import Document, DocumentSet
from distillkit.data.special_tokens import decide_special_tokens, same_names, without_start_names
from distillkit.data.text_encoder import TextEncoders, make_text_encoder

CHAT = "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\nthe dog<|im_end|>"


def chat_model(*names: str, **roles: str) -> Any:
    tokenizer = byte_level(("<|endoftext|>", *names))
    tokenizer.add_special_tokens(roles)
    return tokenizer


def encoders(student: Any, teacher: Any) -> TextEncoders:
    return TextEncoders(*(make_text_encoder(one, None, 100, needs_bytes=True) for one in (student, teacher)))


def documents(*texts: str) -> list[Document]:
    return [Document(text, f"chats.jsonl:{number}") for number, text in enumerate(texts, 1)]


BOTH = encoders(chat_model("<|im_start|>", "<|im_end|>"), chat_model())


@pytest.mark.parametrize(
    ("texts", "parse"),
    [
        ([CHAT, CHAT, "the cat"], True),
        ([CHAT, "the cat", "the dog"], False),
        ([CHAT, "the cat"], False),  # half is not most
        (["the cat"], False),
        (["the <|other|> cat"], False),
    ],
)
def test_auto_parses_where_most_texts_name_special_tokens(texts: list[str], parse: bool) -> None:
    decided = decide_special_tokens("auto", documents(*texts), BOTH)
    assert decided.parse is parse
    assert decided.record()["decided"] == ("parse" if parse else "text")
    chats = texts.count(CHAT)
    assert decided.names == ({"<|im_start|>": 2 * chats, "<|im_end|>": 2 * chats} if chats else {})
    assert (decided.line() is None) is (chats == 0)
    assert not decide_special_tokens("text", documents(*texts), BOTH).parse
    assert decide_special_tokens("parse", documents(*texts), BOTH).parse


def test_sections_of_a_row_count_as_one_text() -> None:
    long = [Document(CHAT, "a.jsonl:1"), *(Document("more", f"a.jsonl:1#{number}") for number in range(2, 9))]
    assert decide_special_tokens("auto", [*long, Document(CHAT, "a.jsonl:2"), Document("x", "a.jsonl:3")], BOTH).parse


def test_names_that_corpora_have_of_their_own_decide_nothing() -> None:
    pair = encoders(chat_model(unk_token="<unk>", pad_token="<pad>", mask_token="[MASK]"), chat_model())
    decided = decide_special_tokens("auto", documents("the <unk> sat", "<pad> [MASK] the <unk>"), pair)
    assert not decided.parse
    assert decided.names == {"<unk>": 2, "<pad>": 1, "[MASK]": 1}
    # The end of a text is evidence, whatever else it is called.
    same = encoders(chat_model(pad_token="<|endoftext|>", unk_token="<|endoftext|>"), chat_model())
    assert decide_special_tokens("auto", documents("the<|endoftext|>the"), same).parse


def test_one_vocabulary_is_one_only_where_the_names_mean_the_same() -> None:
    student, teacher = BOTH.student, BOTH.teacher
    assert same_names(student, student, ["<|im_start|>"])
    assert not same_names(student, teacher, ["<|im_start|>"])
    assert same_names(student, teacher, ["<|endoftext|>"])


def test_a_start_token_that_the_tokenizer_puts_itself_is_not_doubled() -> None:
    adding = chat_model(bos_token="<s>")
    adding.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", adding.bos_token_id)]
    )
    source = DocumentSet("x", {"train": documents("<s>[INST] the<s>", "the")}, {})
    texts = [document.text for document in without_start_names(source, encoders(adding, chat_model())).splits["train"]]
    assert texts == ["[INST] the<s>", "the"]
    plain = chat_model(bos_token="<s>")
    assert without_start_names(source, encoders(plain, chat_model())) is source


def test_the_end_token_is_not_doubled_where_texts_name_it() -> None:
    from dataclasses import replace

    encoder = make_text_encoder(byte_level(), None, 100, needs_bytes=True)
    parsing = replace(encoder, parse=True)
    ids = parsing.token_ids("the cat<|endoftext|>")
    assert ids[-1] == encoder.end_id
    assert parsing.with_specials(ids, ends=True) == [encoder.start_id, *ids]
    assert encoder.end_id not in encoder.token_ids("the cat<|endoftext|>")
    assert parsing.with_specials(ids[:-1], ends=True) == [encoder.start_id, *ids]
