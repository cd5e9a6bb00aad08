"""Texts in which added tokens stand: special ones that are read as tokens, and others.

A tokenizer looks for its added tokens first and encodes what lies between them. So what lies behind one may get a dummy
space of its own, and a token may take the white space beside it. Neither is in the vocabulary's bytes: here every token
gets the bytes of the text that it covers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from distillkit.alignment.token_bytes import TokenBytes

# Unicode's White_Space in UTF-8: what a token with `lstrip` or `rstrip` takes.
_WHITE_SPACE = re.compile(
    rb"(?:[ \t-\r]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)*"
)


@dataclass
class Cover:
    """Which bytes of a text its tokens cover.

    Attributes:
        ends: bytes covered after each token.
        dummy_space: the first token starts with a space that is not in the text.
        unlike: places of tokens that cover other bytes than those of the vocabulary.
        names: the special tokens, place -> name.
    """

    ends: list[int] = field(default_factory=list)
    dummy_space: bool = False
    unlike: list[int] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def mask(self) -> np.ndarray | None:
        """[len(ends)] bool, `unlike` and the special tokens; None where there are none."""
        if not self.unlike and not self.names:
            return None
        mask = np.zeros(len(self.ends), dtype=bool)
        mask[[*self.unlike, *self.names]] = True
        return mask


def cover(table: TokenBytes, ids: Sequence[int], data: bytes, *, parse: bool) -> Cover | None:
    """Lay tokens over the text that they were made of.

    Args:
        data: the text in UTF-8.
        parse: special tokens are allowed; each covers its name.

    Returns:
        None where the tokens do not cover the text byte for byte.
    """
    found = Cover()
    begin = at = 0
    for place, index in enumerate(ids):
        if index not in table.added and index not in table.specials:
            continue
        name = _name(table, index, parse)
        if name is None:
            return None
        left, right = table.added.get(index, (False, False))
        reached = _segment(table, ids[begin:place], data, at, name, found, left=left)
        if reached is None:
            return None
        at = reached
        start = _skip(data, at) if left else at
        end = start + len(name)
        end = _skip(data, end) if right else end
        if index in table.specials:
            found.names[place] = table.specials[index]
        elif end - at != len(name):
            found.unlike.append(place)
        found.ends.append(end)
        begin, at = place + 1, end
    reached = _segment(table, ids[begin:], data, at, None, found, left=False)
    return found if reached == len(data) else None


def _name(table: TokenBytes, index: int, parse: bool) -> bytes | None:
    if index in table.specials:
        return table.specials[index].encode() if parse else None
    return table.pieces[index] if index < len(table) else None


def _skip(data: bytes, at: int) -> int:
    match = _WHITE_SPACE.match(data, at)
    return match.end() if match else at


def _segment(
    table: TokenBytes, ids: Sequence[int], data: bytes, at: int, name: bytes | None, found: Cover, *, left: bool
) -> int | None:
    """Lay the tokens between two added ones over the text from `at` on; returns where they end, None if they do not fit
    in front of `name` (None: the end of the text)."""
    if any(index >= len(table) or table.pieces[index] is None for index in ids):
        return None
    pieces = [table.pieces[index] or b"" for index in ids]
    spelled = b"".join(pieces)
    for dummy in (0, 1):
        if dummy and not (table.leading_space and spelled.startswith(b" ")):
            continue
        end = at + len(spelled) - dummy
        if data[at:end] != spelled[dummy:]:
            continue
        follows = end == len(data) if name is None else data.startswith(name, _skip(data, end) if left else end)
        if not follows:
            continue
        if dummy and not found.ends:
            found.dummy_space = True
        elif dummy:
            found.unlike.append(len(found.ends))
        covered = at - dummy
        for piece in pieces:
            covered += len(piece)
            found.ends.append(max(covered, at))
        return end
    return None
