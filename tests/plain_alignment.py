"""How two tokenizers of transformers read a text, recomputed in plain Python: nothing of distillkit is used here."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
WHITE = b" \t\n\r\v\f"


@dataclass(frozen=True)
class Reading:
    """A text as one tokenizer reads it: ids, bytes read after each, whether a space that is not there comes first."""

    ids: list[int]
    ends: list[int]
    dummy: bool


@dataclass(frozen=True)
class Coverage:
    """Predictions of the student, those that the teacher says something about, those at a byte where both stand; bytes."""

    positions: int
    aligned: int
    on_boundaries: int
    bytes: int
    bytes_aligned: int


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text, names of special tokens spelled out, none put around it."""
    if hasattr(tokenizer, "mergeable_ranks"):
        return tokenizer.tokenizer.encode(text, disallowed_special=())
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]


def plain_bytes(tokenizer: Any, index: int) -> bytes | None:
    """What a token adds to a text; None for special and unknown ones."""
    if index in tokenizer.all_special_ids:
        return None
    if hasattr(tokenizer, "mergeable_ranks"):
        return tokenizer.tokenizer.decode_single_token_bytes(index)
    token = tokenizer.convert_ids_to_tokens(index)
    if index in tokenizer.added_tokens_decoder:
        return token.encode()
    if _is_byte_level(tokenizer):
        return bytes(_BYTES[character] for character in token)
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes.fromhex(token[3:5])
    return token.replace("▁", " ").encode()


def plain_reading(tokenizer: Any, text: str) -> Reading | None:
    """None where the tokens do not spell the text byte for byte."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return None
    if _is_word_piece(tokenizer):
        return _by_offsets(tokenizer, text)
    ids = plain_ids(tokenizer, text)
    pieces = [plain_bytes(tokenizer, index) for index in ids]
    if None in pieces:
        return None
    spelled = b"".join(piece or b"" for piece in pieces)
    dummy = spelled != data
    if dummy and not (spelled == b" " + data and _puts_a_space(tokenizer)):
        return None
    ends, read = [], -int(dummy)
    for piece in pieces:
        read += len(piece or b"")
        ends.append(max(0, read))
    return Reading(ids, ends, dummy)


def plain_coverage(
    student: Reading, teacher: Reading, text: bytes, *, starts: tuple[bool, bool], train_end: tuple[bool, bool]
) -> Coverage:
    """Every prediction of the student, one after another.

    Args:
        starts: whether student and teacher have a start token.
        train_end: whether they learn an end token after this text.
    """
    at, t_at = [0, *student.ends], [0, *teacher.ends]
    first = 0 if starts[0] or not student.ids else 1

    def place(token: int) -> tuple[int, int]:
        """Teacher tokens read when the student has read so many, and bytes into the next one; -1 before a space that only
        the student writes."""
        if token == 0 and student.dummy and student.ids:
            return 0, 0 if teacher.dummy else -1
        read = bisect_right(teacher.ends, at[token])
        pending = read == 0 and teacher.dummy and bool(teacher.ids)
        return read, at[token] - t_at[read] + pending

    aligned = on_boundaries = bytes_aligned = 0
    for token in range(first, len(student.ids)):
        (read, skip), (after, rest) = place(token), place(token + 1)
        ahead = (b" " if token == 0 and student.dummy else b"") + text[at[token] : at[token] + 2]
        run = len(ahead) > 1 and ahead[0] in WHITE and ahead[1] in WHITE
        twin = skip == 0 and rest == 0 and after == read + 1
        if read == len(teacher.ids) or (read == 0 and not starts[1]) or (run and not twin):
            continue
        aligned += 1
        on_boundaries += skip == 0
        bytes_aligned += at[token + 1] - at[token]
    has_end = train_end[0] and (starts[0] or bool(student.ids))
    both_end = has_end and train_end[1] and (starts[1] or bool(teacher.ids))
    size = len(text) - (at[1] if first else 0)
    positions = len(student.ids) - first + has_end
    return Coverage(positions, aligned + both_end, on_boundaries + both_end, size, bytes_aligned)


def _is_word_piece(tokenizer: Any) -> bool:
    return type(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)).__name__ == "WordPiece"


def _is_byte_level(tokenizer: Any) -> bool:
    return "ByteLevel" in str(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", ""))


def _puts_a_space(tokenizer: Any) -> bool:
    pieces = [plain_bytes(tokenizer, index) for index in plain_ids(tokenizer, "e")]
    return None not in pieces and b"".join(piece or b"" for piece in pieces) == b" e"


def _by_offsets(tokenizer: Any, text: str) -> Reading | None:
    """What a token covers is asked of the tokenizer; white space before a token is its own, the rest the last one's."""
    found = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    ids = found["input_ids"]
    if any(index in tokenizer.all_special_ids for index in ids) or (text and not ids):
        return None
    ends = [len(text[:end].encode()) for _, end in found["offset_mapping"]]
    if ends:
        ends[-1] = len(text.encode())
    return Reading(ids, ends, tokenizer.convert_ids_to_tokens(ids[:1]) != [text[: ends[0]]] if ends else False)
