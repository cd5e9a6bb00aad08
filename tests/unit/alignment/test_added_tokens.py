"""Special and other added tokens inside texts: the ids of the tokenizer itself, and the bytes of the text."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizer_makers import TiktokenStyle, byte_level, sentencepiece_like, slow_sentencepiece, unigram, word_piece
from tokenizers import AddedToken

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.encoding import encode_batch, encode_loosely
from distillkit.alignment.rows import aligned_rows
from distillkit.alignment.token_bytes import token_bytes

TEXTS = [
    "<|im_start|>the cat\n <|im_end|>\nthe dog<|im_end|>",
    "the <|im_start|>  the</s> the<s>the",
    " <|im_start|>  the",
    "x <tool> y<tool>the",
    "<|endoftext|>the é<|im_end|>",
    "<|im_start|><|im_end|>",
]


def chat_tokenizer(name: str, tmp_path: Any) -> Any:
    makers = {
        "byte-level": byte_level, "prefix space": lambda: byte_level(add_prefix_space=True),
        "sentencepiece": sentencepiece_like, "unigram": unigram, "slow": lambda: slow_sentencepiece(tmp_path),
        "tiktoken": TiktokenStyle, "word pieces": word_piece,
    }  # fmt: skip
    tokenizer = makers[name]()
    if name != "tiktoken":
        names = [AddedToken("<|im_start|>", rstrip=True, special=True, normalized=False), "<|im_end|>"]
        tokenizer.add_special_tokens({"additional_special_tokens": names})
        tokenizer.add_tokens([AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False)])
    return tokenizer


FAMILIES = ("byte-level", "prefix space", "sentencepiece", "unigram", "slow", "tiktoken", "word pieces")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_parsed_ids_are_those_of_the_tokenizer_and_cover_the_text(family: str, text: str, tmp_path: Any) -> None:
    tokenizer = chat_tokenizer(family, tmp_path)
    table = token_bytes(tokenizer)
    (found,) = encode_batch(tokenizer, table, [text], parse=True)
    if family == "tiktoken":
        expected = tokenizer.tokenizer.encode(text, allowed_special="all")
    else:
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found is not None
    assert found.ids == expected
    data = text.encode()
    assert found.ends.tolist() == sorted(found.ends.tolist())
    assert found.ends[-1] == len(data)
    begins = [0, *found.ends.tolist()]
    for place, index in enumerate(found.ids):
        covered = data[begins[place] : begins[place + 1]]
        if index in table.specials:
            assert found.names[place] == table.specials[index]
            assert covered.strip() == table.specials[index].encode()
            assert found.unlike is not None
            assert found.unlike[place]
        elif found.unlike is None or not found.unlike[place]:
            dummy = b" " * (place == 0 and found.dummy_space)
            assert dummy + covered == table.pieces[index]
    assert set(found.names) == {place for place, index in enumerate(found.ids) if index in table.specials}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_as_text_no_special_token_appears(family: str, text: str, tmp_path: Any) -> None:
    tokenizer = chat_tokenizer(family, tmp_path)
    table = token_bytes(tokenizer)
    for encode in (encode_batch, encode_loosely):
        (found,) = encode(tokenizer, table, [text])
        if found is not None:
            assert set(found.ids).isdisjoint(table.specials)
            assert not found.names
    # All but a unigram model, which finds `</s>` in its own vocabulary.
    (found,) = encode_batch(tokenizer, table, [text])
    assert found is not None or (family == "unigram" and "</s>" in text)


def test_white_space_that_a_token_takes_belongs_to_it() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False)])
    (found,) = encode_batch(tokenizer, token_bytes(tokenizer), ["x \n<tool>\u00a0 y"])
    assert found is not None
    assert found.ends.tolist() == [1, 12, 13]
    assert found.unlike is not None
    assert found.unlike.tolist() == [False, True, False]


def rows_of(student: Any, teacher: Any, text: str) -> Any:
    sides = [encode_batch(side, token_bytes(side), [text], parse=True)[0] for side in (student, teacher)]
    assert sides[0] is not None
    assert sides[1] is not None
    found = aligned_rows(
        sides[0],
        sides[1],
        text.encode(),
        student_start=True,
        teacher_start=True,
        student_has_eos=False,
        teacher_has_eos=False,
    )
    return sides[0], sides[1], found


def test_names_that_both_have_are_targets_and_others_are_not() -> None:
    text = "the<|both|>cat<|ours|>dog<|theirs|>the"
    student, teacher = byte_level(), sentencepiece_like()
    student.add_special_tokens({"additional_special_tokens": ["<|ours|>", "<|both|>"]})
    teacher.add_special_tokens({"additional_special_tokens": ["<|both|>", "<|theirs|>"]})
    ours, theirs, found = rows_of(student, teacher, text)
    by_row = dict(zip(found.student_rows.tolist(), found.teacher_rows.tolist(), strict=True))
    # Row r predicts token r of the text, as a start token stands in front.
    place = {name: place for place, name in ours.names.items()}
    assert set(place) == {"<|ours|>", "<|both|>"}
    assert theirs.names[by_row[place["<|both|>"]]] == "<|both|>"
    assert place["<|ours|>"] not in by_row
    begin, end = text.index("<|theirs|>"), text.index("<|theirs|>") + len("<|theirs|>")
    for row in by_row:
        before = int(ours.ends[row - 1]) if row else 0
        # No row stands inside the teacher's own special token, or reaches into it.
        assert not (before < end and int(ours.ends[row]) > begin)
    names = BytePrefixMap.build(token_bytes(teacher), token_bytes(student), map_names=True)
    plain = BytePrefixMap.build(token_bytes(teacher), token_bytes(student))
    both = teacher.convert_tokens_to_ids("<|both|>")
    assert int(names.student_ids[both]) == student.convert_tokens_to_ids("<|both|>")
    assert int(plain.student_ids[both]) == plain.residual_id
    assert int(names.student_ids[teacher.convert_tokens_to_ids("<|theirs|>")]) == names.residual_id
    # End of text is end of text by whatever name, with both maps.
    assert (
        int(names.student_ids[teacher.eos_token_id])
        == student.eos_token_id
        == int(plain.student_ids[teacher.eos_token_id])
    )
