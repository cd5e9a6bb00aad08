"""The table of tokenizers and kinds of text: what must hold in each of its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizer_makers as make
from plain_alignment import Reading, plain_coverage, plain_reading
from text_kinds import TEXT_KINDS
from tiny_models import tiny_sentencepiece_tokenizer, tiny_tokenizer
from tokenizers import normalizers

from distillkit.alignment.boundaries import shared_boundaries
from distillkit.alignment.encoding import Encoding, encode_batch
from distillkit.alignment.rows import aligned_rows
from distillkit.alignment.token_bytes import TokenBytes, token_bytes

TOKENIZERS: Mapping[str, Callable[[Path], Any]] = {
    "byte-level": lambda _: make.byte_level(),
    "byte-level, larger": lambda _: tiny_tokenizer(700),
    "byte-level, prefix space": lambda _: make.byte_level(add_prefix_space=True),
    "byte-level, modern split": lambda _: make.split_byte_level(),
    "byte-level, NFC": lambda _: make.split_byte_level(normalizer=normalizers.NFC()),
    "byte-level, NFKC": lambda _: make.split_byte_level(normalizer=normalizers.NFKC()),
    "byte-level, added token": lambda _: make.split_byte_level(added=("<tool>", "12")),
    "byte-level, digits": lambda _: make.digits_apart(),
    "bytes alone": lambda _: make.bytes_alone(),
    "sentencepiece bpe": lambda _: make.sentencepiece_like(),
    "sentencepiece bpe, converted": lambda folder: tiny_sentencepiece_tokenizer(folder / "converted"),
    "sentencepiece bpe, gemma": lambda _: make.gemma_like(),
    "sentencepiece bpe, no fallback": lambda _: make.gemma_like(byte_fallback=False),
    "slow sentencepiece": lambda folder: make.slow_sentencepiece(folder),
    "unigram": lambda _: make.unigram(),
    "unigram, space in front": lambda _: make.unigram_of_letters(byte_fallback=True),
    "unigram, no fallback": lambda _: make.unigram_of_letters(),
    "tiktoken": lambda _: make.TiktokenStyle(),
    "word pieces": lambda _: make.word_piece(),
}  # fmt: skip
# The bytes of these cannot be known: white box refuses them.
UNKNOWABLE: Mapping[str, Callable[[], Any]] = {
    "word pieces, lower case": lambda: make.word_piece(lowercase=True),
    "marked ends of words": make.character_bpe,
    "whole words": make.word_level,
}
# Those that have a token for every byte, and change nothing.
COMPLETE = (
    "byte-level", "byte-level, larger", "byte-level, modern split", "byte-level, added token", "byte-level, digits", "bytes alone",
    "byte-level, prefix space", "tiktoken",
)  # fmt: skip
# Only a little of a long text is decoded again: the check is quadratic.
_PREFIXES = 25


@dataclass(frozen=True)
class Side:
    """A tokenizer, the bytes of its tokens, and every text as it reads it: by distillkit and plainly."""

    tokenizer: Any
    table: TokenBytes
    _read: dict[str, tuple[Encoding | None, Reading | None]] = field(default_factory=dict)

    def read(self, kind: str) -> tuple[Encoding | None, Reading | None]:
        if kind not in self._read:
            text = TEXT_KINDS[kind]
            self._read[kind] = encode_batch(self.tokenizer, self.table, [text])[0], plain_reading(self.tokenizer, text)
        return self._read[kind]


def check_reading(side: Side, kind: str) -> bool:
    """Ids, ends and bytes are those of the plain tokenizer, or the text is refused by both; whether it was read."""
    text = TEXT_KINDS[kind]
    found, plain = side.read(kind)
    assert (found is None) == (plain is None), kind
    if found is None or plain is None:
        return False
    assert (found.ids, found.ends.tolist()) == (plain.ids, plain.ends), kind
    data = text.encode()
    assert not data or plain.ends[-1] == len(data), kind
    if side.table.by_offsets:
        return True
    assert found.dummy_space == plain.dummy, kind
    for count in range(1, len(plain.ids) + 1, 1 + len(plain.ids) // _PREFIXES):
        decoded = decode(side.tokenizer, plain.ids[:count])
        if not decoded.endswith("\ufffd"):  # A character is not complete yet.
            covered = data[: plain.ends[count - 1]].decode()
            assert decoded in (covered, covered.removeprefix(" "), f" {covered}"), (kind, count)
    return True


def decode(tokenizer: Any, ids: list[int]) -> str:
    """What the library itself makes of tokens."""
    if hasattr(tokenizer, "mergeable_ranks"):
        return tokenizer.tokenizer.decode(ids)
    if hasattr(tokenizer, "sp_model"):
        return tokenizer.sp_model.decode(ids)
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def check_pair(student: Side, teacher: Side, kind: str, flags: tuple[bool, bool, bool, bool]) -> bool:
    """Shared boundaries and coverage are those of a count by hand; whether both read the text.

    Args:
        flags: whether student and teacher have a start token, and whether they learn an end.
    """
    data = TEXT_KINDS[kind].encode("utf-8", "replace")
    (s_found, s_plain), (t_found, t_plain) = student.read(kind), teacher.read(kind)
    if s_found is None or t_found is None or s_plain is None or t_plain is None:
        return False
    first, second = shared_boundaries(s_found.ends, t_found.ends)
    common = sorted(set(s_plain.ends) & set(t_plain.ends))
    assert s_found.ends[first].tolist() == t_found.ends[second].tolist() == common, kind
    if student.table.by_offsets or teacher.table.by_offsets:
        return True  # Which of their tokens stand for other bytes than usual is not counted here.
    names = ("student_start", "teacher_start", "student_has_eos", "teacher_has_eos")
    rows = aligned_rows(s_found, t_found, data, **dict(zip(names, flags, strict=True)))
    counted = plain_coverage(s_plain, t_plain, data, starts=flags[:2], train_end=flags[2:])
    assert (rows.positions, rows.positions_aligned, rows.positions_on_boundaries) == (
        counted.positions, counted.aligned, counted.on_boundaries
    ), kind  # fmt: skip
    assert (rows.bytes, rows.bytes_aligned) == (counted.bytes, counted.bytes_aligned), kind
    return True


def made(folder: Path) -> dict[str, Side]:
    """All of `TOKENIZERS`, with their tables."""
    found = {name: maker(folder) for name, maker in TOKENIZERS.items()}
    return {name: Side(tokenizer, token_bytes(tokenizer)) for name, tokenizer in found.items()}
