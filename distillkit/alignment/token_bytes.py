"""What every token spells, in UTF-8 bytes: the common ground of two tokenizers.

Strings of the vocabulary do not compare (`Ġthe` is never `▁the`) and character offsets break inside multi-byte
characters, so everything that relates tokens to text starts from the bytes found here, and every encoding is checked
against its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np

from distillkit.alignment.word_pieces import is_word_piece, word_pieces
from distillkit.errors import PreconditionError

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Normalisers that change letters, so that a token does not spell the text.
_LOSSY_NORMALIZERS = {"Lowercase", "StripAccents"}
_KNOWN_DECODERS = {"ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}


@dataclass(frozen=True)
class TokenBytes:
    """The bytes of every token of one tokenizer.

    Attributes:
        pieces: by id, the bytes that the token adds to a text; None for special and unused ids.
        leading_space: the tokenizer puts a space that is not in the text in front of it (SentencePiece's dummy
            prefix, GPT-2's add_prefix_space).
        specials: the special tokens, id -> content.
        shadowed: ids whose bytes another token spells too, which is the one that the tokenizer writes: byte-fallback
            tokens with an ordinary twin (`<0x2C>` beside `,`), and duplicates.
        eos_id: the end of text; None where there is no such token.
        by_offsets: the tokens do not spell every text (WordPiece forgets white space); which bytes of a text a token
            stands for is asked of the tokenizer, and where they are not those of `pieces` the token is
            `Encoding.unlike`.
        added: tokens that are found in a text before anything else (special or not), id -> whether the token takes the
            white space on its left, on its right.
    """

    pieces: tuple[bytes | None, ...]
    leading_space: bool = False
    specials: Mapping[int, str] = field(default_factory=dict)
    shadowed: frozenset[int] = frozenset()
    eos_id: int | None = None
    by_offsets: bool = False
    added: Mapping[int, tuple[bool, bool]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def lengths(self) -> np.ndarray:
        """[V] int64: bytes of each token, -1 where `pieces` is None."""
        return np.fromiter((-1 if piece is None else len(piece) for piece in self.pieces), np.int64, len(self.pieces))

    @cached_property
    def ids_by_bytes(self) -> dict[bytes, int]:
        """Bytes -> the id that the tokenizer writes for them."""
        ids: dict[bytes, int] = {}
        for index, piece in enumerate(self.pieces):
            if piece and index not in self.shadowed:
                ids.setdefault(piece, index)
        return ids

    def is_token(self, index: int) -> bool:
        """True where the id means something: ordinary or special, not a hole and not padding."""
        return 0 <= index < len(self.pieces) and (self.pieces[index] is not None or index in self.specials)


def token_bytes(tokenizer: Any) -> TokenBytes:
    """Find out what every token of a transformers tokenizer spells.

    Understands byte-level BPE, SentencePiece (BPE and unigram, fast or slow, with or without byte fallback),
    tiktoken-style tokenizers that carry their own table, and WordPiece that keeps letters as they are.

    Raises:
        PreconditionError: the bytes cannot be known (lowercasing, end-of-word marks, an unknown kind).
    """
    word_piece = is_word_piece(tokenizer)
    encoding = _tiktoken_encoding(tokenizer)
    specials = _special_tokens(tokenizer)
    if encoding is not None:
        pieces, fallback = _tiktoken_pieces(tokenizer, encoding), frozenset()
        specials = {index: name for name, index in getattr(encoding, "_special_tokens", {}).items()} | specials
    elif getattr(tokenizer, "backend_tokenizer", None) is not None:
        pieces, fallback = _backend_pieces(tokenizer)
    elif getattr(tokenizer, "sp_model", None) is not None:
        pieces, fallback = _sentencepiece_pieces(tokenizer)
    elif isinstance(getattr(tokenizer, "byte_decoder", None), dict):
        pieces, fallback = {i: _from_byte_alphabet(piece) for piece, i in tokenizer.get_vocab().items()}, frozenset()
    else:
        raise _unknowable(tokenizer, "its kind is not known")
    for index, token in _added_tokens(tokenizer).items():
        if not token.special:
            pieces.setdefault(index, token.content.encode())
    size = max([-1, *pieces, *specials]) + 1
    table = tuple(None if index in specials else pieces.get(index) for index in range(size))
    eos_id = tokenizer.eos_token_id
    if eos_id is None:
        eos_id = getattr(tokenizer, "eod_id", None)  # Qwen-1 names its end of text so, and declares no EOS.
    return TokenBytes(
        pieces=table,
        leading_space=word_piece or _writes_leading_space(tokenizer, table),
        specials=specials,
        shadowed=_shadowed(tokenizer, table, fallback),
        eos_id=eos_id,
        by_offsets=word_piece,
        added={index: (token.lstrip, token.rstrip) for index, token in _added_tokens(tokenizer).items()},
    )


def common_ids(a: TokenBytes, b: TokenBytes) -> np.ndarray:
    """[min(len(a), len(b))] bool: ids that mean the same in both, special tokens included.

    A hole, a padded id, and a special token that is another one on the other side are False. End of text is end of
    text by whatever name.
    """

    def same(index: int) -> bool:
        if not (a.is_token(index) and b.is_token(index)) or a.pieces[index] != b.pieces[index]:
            return False
        both_end = index == a.eos_id == b.eos_id
        return both_end or a.pieces[index] is not None or a.specials.get(index) == b.specials.get(index)

    size = min(len(a), len(b))
    return np.fromiter((same(index) for index in range(size)), bool, size)


def same_vocabulary(a: TokenBytes, b: TokenBytes) -> bool:
    """True if every id that spells bytes on either side spells the same bytes on both.

    Sizes may differ: special, unused and padded ids (None) agree with None and with what lies beyond the other's
    end. So a text encoded by one can be read by the other, token by token.
    """
    shorter, longer = sorted((a.pieces, b.pieces), key=len)
    excess = longer[len(shorter) :]
    return longer[: len(shorter)] == shorter and all(piece is None for piece in excess) and a.shadowed == b.shadowed


# What the tokenizer is made of


@cache
def _byte_alphabet() -> dict[int, int]:
    """GPT-2's map from characters to bytes, as a table for `str.translate`.

    Characters below U+0100 that are not in the alphabet become U+FFFF, so that encoding to latin-1 fails on them.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = dict.fromkeys(range(256), 65535) | {byte: byte for byte in printable}
    others = (byte for byte in range(0x100) if byte not in set(printable))
    return table | {0x100 + position: byte for position, byte in enumerate(others)}


def _from_byte_alphabet(piece: str) -> bytes:
    try:
        return piece.translate(_byte_alphabet()).encode("latin-1")
    except UnicodeEncodeError:
        return piece.encode()  # The ByteLevel decoder does the same with a token that is not written in its alphabet.


def _from_sentencepiece(piece: str, space_marks: Iterable[str], byte_fallback: bool) -> bytes:
    if byte_fallback and (match := _BYTE_PIECE.fullmatch(piece)):
        return bytes([int(match[1], 16)])
    for mark in space_marks:
        piece = piece.replace(mark, " ")
    return piece.encode()


def _added_tokens(tokenizer: Any) -> Mapping[int, Any]:
    return getattr(tokenizer, "added_tokens_decoder", {})


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    # A special token that its configuration names and its vocabulary has not ("") has no id.
    pairs = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    named = {index: token for index, token in pairs if index is not None}
    return named | {index: token.content for index, token in _added_tokens(tokenizer).items() if token.special}


def _tiktoken_encoding(tokenizer: Any) -> Any | None:
    """The tiktoken `Encoding` inside a tokenizer (Qwen-1: `.tokenizer`, Kimi: `.model`), or None."""
    candidates = (getattr(tokenizer, name, None) for name in ("tokenizer", "model", "encoder"))
    return next((inner for inner in candidates if callable(getattr(inner, "encode_ordinary", None))), None)


def _tiktoken_pieces(tokenizer: Any, encoding: Any) -> dict[int, bytes]:
    ranks = getattr(tokenizer, "mergeable_ranks", None) or getattr(encoding, "_mergeable_ranks", None)
    if not ranks:
        raise _unknowable(tokenizer, "it does not show its table of bytes")
    return {index: piece for piece, index in ranks.items()}


def _sentencepiece_pieces(tokenizer: Any) -> tuple[dict[int, bytes], frozenset[int]]:
    # By the tokenizer's ids, not the model's: several classes shift them.
    model = tokenizer.sp_model
    pieces: dict[int, bytes] = {}
    fallback: set[int] = set()
    for piece, index in tokenizer.get_vocab().items():
        position = model.piece_to_id(piece)
        if model.id_to_piece(position) != piece or model.is_control(position) or model.is_unknown(position):
            continue
        if model.is_byte(position):
            fallback.add(index)
        if not model.is_unused(position):
            pieces[index] = _from_sentencepiece(piece, "▁", model.is_byte(position))
    return pieces, frozenset(fallback)


def _backend_pieces(tokenizer: Any) -> tuple[dict[int, bytes], frozenset[int]]:
    backend = tokenizer.backend_tokenizer
    normalizers = list(_components(backend.normalizer))
    splitters = list(_components(backend.pre_tokenizer))
    decoders = list(_components(backend.decoder))
    kind = type(backend.model).__name__
    lossy = _LOSSY_NORMALIZERS & {step["type"] for step in normalizers}
    lossy |= {step["type"] for step in normalizers if step.get("lowercase") or step.get("strip_accents")}
    if lossy:
        raise _unknowable(tokenizer, f"it changes the text ({', '.join(sorted(lossy))})")
    if kind == "WordPiece":
        vocabulary = backend.get_vocab(with_added_tokens=False)
        return word_pieces(vocabulary, backend.model.continuing_subword_prefix), frozenset()
    strange = {step["type"] for step in decoders} - _KNOWN_DECODERS
    if strange:
        raise _unknowable(tokenizer, f"it is made of words ({', '.join(sorted(strange))}), not of bytes")
    marks = (getattr(backend.model, name, None) for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    if any(marks):
        raise _unknowable(tokenizer, "it marks the parts of words")
    vocabulary = backend.get_vocab(with_added_tokens=False)
    everything = [*normalizers, *splitters, *decoders]
    if any(step["type"] == "ByteLevel" for step in everything):
        return {index: _from_byte_alphabet(piece) for piece, index in vocabulary.items()}, frozenset()
    spaces = {step["replacement"] for step in everything if step["type"] == "Metaspace"}
    spaces |= {
        step["pattern"].get("String", "") for step in decoders if step["type"] == "Replace" and step["content"] == " "
    }
    if not spaces - {""}:
        raise _unknowable(tokenizer, "it keeps no trace of white space")
    byte_fallback = any(step["type"] == "ByteFallback" for step in decoders) or bool(
        getattr(backend.model, "byte_fallback", False)
    )
    pieces = {i: _from_sentencepiece(piece, spaces - {""}, byte_fallback) for piece, i in vocabulary.items()}
    fallback = {i for piece, i in vocabulary.items() if byte_fallback and _BYTE_PIECE.fullmatch(piece)}
    return pieces, frozenset(fallback)


def _components(component: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normaliser, pre-tokenizer or decoder of the `tokenizers` library, sequences unfolded."""
    if component is None:
        return
    waiting = [json.loads(component.__getstate__())]
    while waiting:
        step = waiting.pop(0)
        nested = [value for name in ("normalizers", "pretokenizers", "decoders") for value in step.get(name, ())]
        if step["type"] == "Sequence":
            waiting = [*nested, *waiting]
        else:
            yield step


def _shadowed(tokenizer: Any, table: Sequence[bytes | None], fallback: frozenset[int]) -> frozenset[int]:
    twins: dict[bytes, list[int]] = {}
    for index, piece in enumerate(table):
        if piece:
            twins.setdefault(piece, []).append(index)
    shadowed: set[int] = set()
    for piece, ids in twins.items():
        if len(ids) == 1:
            continue
        ordinary = [index for index in ids if index not in fallback] or ids
        written = ordinary[0]
        if len(ordinary) > 1:
            text = piece.decode(errors="ignore")
            written = next((index for index in token_ids(tokenizer, [text])[0] if index in ordinary), written)
        shadowed |= set(ids) - {written}
    return frozenset(shadowed)


def _writes_leading_space(tokenizer: Any, table: Sequence[bytes | None]) -> bool:
    # The tokenizer itself is asked: the setting hides in half a dozen places (scheme, prefix, legacy behaviour).
    for letter in "ae1.":
        ids = token_ids(tokenizer, [letter])[0]
        spelled = b"".join(table[index] or b"?" for index in ids if index < len(table))
        if spelled in (letter.encode(), b" " + letter.encode()):
            return spelled[:1] == b" "
    return False


def _unknowable(tokenizer: Any, why: str) -> PreconditionError:
    return PreconditionError(
        f"the bytes of the tokens of {type(tokenizer).__name__} cannot be known: {why}",
        hint="use --box-type black, which needs only the text that the teacher writes",
    )


def token_ids(tokenizer: Any, texts: list[str], *, parse: bool = False) -> list[list[int]]:
    """Texts as tokens without special tokens around them.

    Args:
        parse: a special token's name inside a text is the token; else it is ordinary text.
    """
    if not texts:
        return []
    encoding = _tiktoken_encoding(tokenizer)
    if encoding is not None and parse:
        return [encoding.encode(text, allowed_special="all", disallowed_special=()) for text in texts]
    if encoding is not None:
        return [encoding.encode_ordinary(text) for text in texts]
    # Added tokens that are not special are still found by fast tokenizers; they count with their text.
    return tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=not parse,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
