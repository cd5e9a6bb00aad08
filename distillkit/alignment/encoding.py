"""A text as tokens, with the byte of the text at which each of them ends.

Every encoding is checked against the text: its tokens spell it byte for byte, or it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distillkit.alignment.added_tokens import cover
from distillkit.alignment.token_bytes import TokenBytes, token_ids

# Texts that go to the tokenizer in one call: enough to use its threads, few enough for its bookkeeping in memory.
_BATCH = 512


@dataclass(frozen=True, eq=False)
class Encoding:
    """One text as tokens, without special tokens around it.

    Attributes:
        ids: the tokens.
        ends: [len(ids)] int64, UTF-8 bytes of the text covered after each token; not decreasing.
        dummy_space: the first token starts with a space that is not in the text (it counts for no byte).
        unlike: [len(ids)] bool, True where the bytes in the text are not those of the vocabulary, and at special tokens;
            None: nowhere.
        names: the special tokens that the text names, place -> name; each covers the bytes of its name.
    """

    ids: list[int]
    ends: np.ndarray
    dummy_space: bool = False
    unlike: np.ndarray | None = None
    names: Mapping[int, str] = field(default_factory=dict)


def encode_batch(
    tokenizer: Any, table: TokenBytes, texts: Sequence[str], *, parse: bool = False
) -> list[Encoding | None]:
    """Encode texts without special tokens around them.

    Args:
        tokenizer: of transformers.
        table: the bytes of its tokens.
        parse: a special token's name inside a text is the token; else it is ordinary text.

    Returns:
        An encoding for each text; None where the tokens do not spell it byte for byte (an unknown character, a
        normaliser that changed it, a special token that this tokenizer cannot write as text, a lone surrogate): such a
        text cannot be aligned.
    """
    encodings: list[Encoding | None] = []
    for start in range(0, len(texts), _BATCH):
        batch = [(text, _utf8(text)) for text in texts[start : start + _BATCH]]
        readable = [text for text, data in batch if data is not None]
        encoded = iter(
            encode_by_offsets(tokenizer, readable, parse=parse)
            if table.by_offsets
            else token_ids(tokenizer, readable, parse=parse)
        )
        encodings += [None if data is None else _verified(table, next(encoded), data, parse) for _, data in batch]
    return encodings


def encode_loosely(
    tokenizer: Any, table: TokenBytes, texts: Sequence[str], *, parse: bool = False
) -> list[Encoding | None]:
    """Encode texts that the tokens need not spell, for where no bytes are compared: the tokenizer is asked which part of
    the text a token stands for, and its token for unknown characters is allowed.

    Returns:
        None for a text that is not Unicode, for one in which a special token would stand that is not asked for, and for
        every text if the tokenizer cannot be asked (a slow one).
    """
    if not getattr(tokenizer, "is_fast", False):
        return [None] * len(texts)
    encoded = iter(encode_by_offsets(tokenizer, [text for text in texts if _utf8(text) is not None], parse=parse))
    found = [None if _utf8(text) is None else next(encoded) for text in texts]
    if parse:
        return found
    unknown = unknown_ids(tokenizer)

    def is_text(text: str, item: Encoding) -> bool:
        # A text that names the token for unknown characters may mean the token or its name: nobody can tell.
        met = set(item.ids) & set(table.specials)
        return met <= unknown and not any(table.specials[index] in text for index in met)

    return [item if item is not None and is_text(text, item) else None for text, item in zip(texts, found, strict=True)]


def unknown_ids(tokenizer: Any) -> frozenset[int]:
    """The tokens that are written for characters that are not in the vocabulary. GPT-2 and SmolLM2 name their end of text so, and
    never write it: BPE without a token for unknown ones of its own has none. A unigram model writes the one of its own model file,
    whatever it is called."""
    named = getattr(tokenizer, "unk_token_id", None)
    found = set() if named is None or named in (tokenizer.bos_token_id, tokenizer.eos_token_id) else {named}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and type(backend.model).__name__ == "BPE" and backend.model.unk_token is None:
        return frozenset()
    if backend is not None and type(backend.model).__name__ == "Unigram":
        own = json.loads(backend.to_str())["model"].get("unk_id")
        found |= {own} if own is not None else set()
    return frozenset(found)


def encode_by_offsets(tokenizer: Any, texts: Sequence[str], *, parse: bool = False) -> list[Encoding]:
    """For fast tokenizers whose tokens do not spell the text: where in the original each token ends. What lies before
    a token, white space mostly, counts for it; what lies behind the last one counts for the last one."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=not parse,
        return_offsets_mapping=True,
        verbose=False,
    )
    result: list[Encoding] = []
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        byte_at = np.concatenate([[0], np.cumsum([len(character.encode("utf-8", "replace")) for character in text])])
        ends = byte_at[[end for _, end in offsets]] if offsets else np.zeros(0)
        ends = np.maximum.accumulate(ends.astype(np.int64)) if len(ends) else ends.astype(np.int64)
        if len(ends):
            ends[-1] = byte_at[-1]
        result.append(Encoding(list(ids), ends))
    return result


def _utf8(text: str) -> bytes | None:
    """The bytes of a text; None where it is not Unicode (a lone surrogate)."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def _verified(table: TokenBytes, encoded: Encoding | list[int], data: bytes, parse: bool) -> Encoding | None:
    if isinstance(encoded, Encoding):
        return _compared(table, encoded, data, parse)
    return _checked(table, encoded, data) or _covered(table, encoded, data, parse)


def _checked(table: TokenBytes, ids: list[int], data: bytes) -> Encoding | None:
    """The encoding of these ids, all of them ordinary; None where they do not spell the text."""
    if any(index >= len(table) for index in ids):
        return None
    lengths = table.lengths[np.asarray(ids, dtype=np.int64)]
    if (lengths < 0).any():  # A special or unknown token.
        return None
    spelled = b"".join(table.pieces[index] or b"" for index in ids)
    dummy_space = spelled != data
    if dummy_space and not (table.leading_space and spelled == b" " + data):
        return None
    return Encoding(ids, np.maximum(np.cumsum(lengths) - int(dummy_space), 0), dummy_space)


def _covered(table: TokenBytes, ids: list[int], data: bytes, parse: bool) -> Encoding | None:
    """The encoding of these ids with added tokens among them; None where they do not cover the text."""
    if not any(index in table.added or index in table.specials for index in ids):
        return None
    found = cover(table, ids, data, parse=parse)
    if found is None:
        return None
    return Encoding(ids, np.array(found.ends, dtype=np.int64), found.dummy_space, found.mask(), found.names)


def _compared(table: TokenBytes, encoding: Encoding, data: bytes, parse: bool) -> Encoding | None:
    """An encoding by offsets, with a mark on the tokens that stand for other bytes than they usually do; None where it
    has unknown or, unless they are parsed, special tokens, or none for a text."""
    ids = encoding.ids
    names = {place: table.specials[index] for place, index in enumerate(ids) if index in table.specials}
    if any(index >= len(table) or (table.pieces[index] is None and index not in table.specials) for index in ids):
        return None
    starts = np.append(0, encoding.ends)[:-1]
    spans = [data[begin:end] for begin, end in zip(starts.tolist(), encoding.ends.tolist(), strict=True)]
    if names and not (parse and all(name.encode() in spans[place] for place, name in names.items())):
        return None
    if data and not ids:
        return None
    pieces = [table.pieces[index] or b"" for index in ids]
    dummy_space = bool(spans) and pieces[0] == b" " + spans[0]
    unlike = np.fromiter((span != piece for span, piece in zip(spans, pieces, strict=True)), bool, len(spans))
    if dummy_space:
        unlike[0] = False
    return Encoding(ids, encoding.ends, dummy_space, unlike if unlike.any() else None, names)
