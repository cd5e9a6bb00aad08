"""A text as the tokens of a server whose tokenizer is not here: what each of them spells, and the likeliest ones at every place.

The text is sent as text, and the server's tokens are laid along it by their bytes. Where a server gives a token in a lossy way
(U+FFFD for a part of a character) its bytes are looked for in the text, between the tokens that are known, and never guessed:
what can be laid in two ways is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distillkit.servers.prompt_logprobs import UNKNOWN, Place, Way, places_of, spelled

# The end of a text by the names that the common families give it. What is not told by its name is no end here.
ENDS = frozenset({"</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<|end▁of▁sentence|>", "<｜end▁of▁sentence｜>"})
_SPECIAL = re.compile(
    r"<[|｜][^<>]{1,60}[|｜]>|</?s>|\[(?:PAD|UNK|CLS|SEP|MASK|BOS|EOS|INST|/INST|gMASK)\]"
    r"|<(?:bos|eos|pad|unk|mask|sop|eop|start_of_turn|end_of_turn|unused\d+)>"
)
# Without a start token nothing predicts the first token, and vLLM does not name it: so many bytes it may have.
_LONGEST_FIRST = 128
_SHOWN = 40


class OtherTextError(Exception):
    """A server's tokens do not spell the text that it was given; says how."""


@dataclass
class Spread:
    """A server's distribution over the next token.

    Attributes:
        tokens: bytes -> probability.
        end: that the text ends here; special: of other special tokens.
        listed: of everything that the server gives whose bytes are known or that is special. The rest up to 1 is spread over
            tokens of which nothing is known.
    """

    tokens: dict[bytes, float] = field(default_factory=dict)
    end: float = 0.0
    special: float = 0.0

    @property
    def listed(self) -> float:
        return math.fsum(self.tokens.values()) + self.end + self.special


@dataclass(frozen=True, eq=False)
class SpelledPrompt:
    """A text of T tokens.

    Attributes:
        pieces: [T] the bytes of each token; None where they are not told.
        ends: [T] int64, bytes of the text that are covered after each. Tokens that are not told all end where they do
            together.
        dummy_space: the first token begins with a space that is not in the text.
        starts: a start token stands in front, so that the first token is predicted too.
        spreads: [T + 1] the distribution after so many tokens; None where the server gives none.
        logarithms: [T] of the probability of each token, nats; NaN where it is not given.
    """

    pieces: list[bytes | None]
    ends: np.ndarray
    dummy_space: bool
    starts: bool
    spreads: list[Spread | None]
    logarithms: np.ndarray


def text_question(way: Way, text: str, size: int) -> dict[str, Any]:
    """What is asked of `/completions`: the likeliest `size` tokens at every place of a text, and behind it."""
    body: dict[str, Any] = {"prompt": text, "max_tokens": 1, "temperature": 1.0, "logprobs": size}
    return body | ({"prompt_logprobs": size} if way == "prompt_logprobs" else {"echo": True})


def spelled_prompt(way: Way, content: Any, text: str, end_names: frozenset[str] = frozenset()) -> SpelledPrompt:
    """The text in an answer to `text_question`.

    Args:
        end_names: what else means the end of a text (the student's own end token).

    Raises:
        MalformedReplyError: there are no log-probabilities in it.
        OtherTextError: its tokens are those of another text, or can be laid along this one in two ways.
    """
    places, behind = places_of(way, content)
    names = ENDS | end_names
    candidates = [(places, behind)]
    if way == "echo" and len(places) > 1:
        # The token that was written stands behind the prompt, unless the model ended there.
        candidates = [(places[:-1], places[-1]), (places, None)]
    problem = OtherTextError("it has no tokens")
    for some, last in candidates:
        for inside, start, following in _without_names(some, last, names):
            for marks in (False, True):
                try:
                    return _laid(inside, start, following, text, names, marks)
                except OtherTextError as error:
                    problem = problem if marks else error
    raise problem


def _without_names(
    places: Sequence[Place], behind: Place | None, names: frozenset[str]
) -> Iterator[tuple[list[Place], int, Place | None]]:
    """The places without special tokens around the text, how many of these stood in front, and what follows the text: first
    without all, then without fewer, as a chat template writes some into the text.

    vLLM does not name the first token: whether it is a start token is seen where the tokens are laid along the text."""
    first, last = 0, len(places)
    while first < last and _is_special(places[first].token or "", names):
        first += 1
    while last > first and _is_special(places[last - 1].token or "", names):
        last -= 1
    for end in range(last, len(places) + 1):
        for begin in range(first, -1, -1):
            yield list(places[begin:end]), begin, places[end] if end < len(places) else behind


def _laid(
    places: Sequence[Place], start: int, behind: Place | None, text: str, names: frozenset[str], marks: bool
) -> SpelledPrompt:  # fmt: skip
    """The tokens along the text.

    Args:
        marks: whether `▁` is a space.
    """
    data = text.encode()
    unnamed = bool(places) and places[0].token is None
    known = [_bytes_of(place.token or "", marks) for place in places[unnamed:]]
    tokens = [place.token or "" for place in places[unnamed:]]
    spans, dummy_space = _spans(tokens, known, data, unnamed)
    starts, places = start > 0, list(places)
    if unnamed and spans[0] == (0, 0):
        starts, spans, places = True, spans[1:], places[1:]
    elif unnamed:
        known.insert(0, data[: spans[0][1]])
    spreads = [_spread(place, names, marks) for place in places]
    if not starts and spreads:
        spreads[0] = None
    logarithms = [math.nan if place.logarithm is None else place.logarithm for place in places]
    ends = np.array([end for _, end in spans], dtype=np.int64)
    return SpelledPrompt(
        known, ends, dummy_space, starts, [*spreads, None if behind is None else _spread(behind, names, marks)],
        np.array(logarithms, dtype=np.float64),
    )  # fmt: skip


def _spans(
    tokens: Sequence[str], known: Sequence[bytes | None], data: bytes, unnamed: bool
) -> tuple[list[tuple[int, int]], bool]:
    """The bytes [begin, end) of the text that each token stands for, one more in front where the first is unnamed, and whether
    the first begins with a space that is not there."""
    for lead in (0, 1):
        given = b" " * lead + data
        most, least = (_match(tokens, known, given, unnamed, more) for more in (b"", b"?"))
        if most is None or least is None:
            continue
        # The first part that could take more or less would show it.
        if most.regs != least.regs:
            raise OtherTextError("parts of characters, which it writes as U+FFFD, fit in more than one way")
        spans = _token_spans(most, known, unnamed)
        return [(max(0, begin - lead), max(0, end - lead)) for begin, end in spans], bool(lead)
    written = "".join(tokens)
    raise OtherTextError(f"{written[:_SHOWN]!r} stands where {data.decode()[:_SHOWN]!r} was sent")


def _match(
    tokens: Sequence[str], known: Sequence[bytes | None], data: bytes, unnamed: bool, more: bytes
) -> re.Match[bytes] | None:
    """The tokens along the data: a group for each run of tokens that are told and of those that are not.

    Args:
        more: b"" where what is not told shall take as many bytes as it can, b"?" for as few.
    """
    pattern = [b"(?P<first>(?s:.{0,%d}%s))" % (_LONGEST_FIRST, more)] if unnamed else []
    for number, (told, first, last) in enumerate(_runs(known)):
        if told:
            inside = re.escape(b"".join(known[index] or b"" for index in range(first, last)))
        else:
            parts = re.split(f"({UNKNOWN}+)", "".join(tokens[first:last]))
            inside = b"".join(_lossy(part, more) for part in parts)
        pattern.append(b"(?P<run%d>%s)" % (number, inside))
    return re.fullmatch(b"".join(pattern), data)


def _runs(known: Sequence[bytes | None]) -> list[tuple[bool, int, int]]:
    """(whether they are told, first, one past the last) of tokens in a row that are, or are not, told."""
    runs: list[tuple[bool, int, int]] = []
    for index, piece in enumerate(known):
        told = piece is not None
        if runs and runs[-1][0] == told:
            runs[-1] = (told, runs[-1][1], index + 1)
        else:
            runs.append((told, index, index + 1))
    return runs


def _token_spans(found: re.Match[bytes], known: Sequence[bytes | None], unnamed: bool) -> list[tuple[int, int]]:
    spans = [found.span("first")] if unnamed else []
    for number, (told, first, last) in enumerate(_runs(known)):
        begin, end = found.span(f"run{number}")
        for index in range(first, last):
            # Of tokens that are not told it is known what they stand for together, not where one of them ends.
            if told:
                end = begin + len(known[index] or b"")
            spans.append((begin, end))
            begin = end if told else begin
    return spans


def _lossy(part: str, more: bytes) -> bytes:
    if not part.startswith(UNKNOWN):
        return re.escape(part.encode())
    # Each stands for one to three bytes of a character.
    return b"([\x80-\xff]{%d,%d}%s)" % (len(part), 3 * len(part), more)


def _is_special(token: str, names: frozenset[str]) -> bool:
    return token in names or _SPECIAL.fullmatch(token) is not None


def _bytes_of(token: str, marks: bool) -> bytes | None:
    found = spelled(token, marks=marks)
    return found if found else None


def _spread(place: Place, names: frozenset[str], marks: bool) -> Spread | None:
    if place.logarithm is None and not place.others:
        return None
    spread = Spread()
    # The token that follows stands there once, whether it is among the likeliest or not.
    entries = {(index, token): logarithm for index, token, logarithm in place.others}
    if place.token is not None and place.logarithm is not None and all(key[1] != place.token for key in entries):
        entries[None, place.token] = place.logarithm
    for (_, token), logarithm in entries.items():
        probability = math.exp(min(0.0, logarithm))
        if token in names:
            spread.end += probability
        elif _is_special(token, names):
            spread.special += probability
        elif (piece := _bytes_of(token, marks)) is not None:
            spread.tokens[piece] = spread.tokens.get(piece, 0.0) + probability
    return spread


def prompt_nll(prompt: SpelledPrompt, size: int) -> tuple[float, int, int]:
    """(nats, bytes, tokens) of what of the text the server predicts: all of it, or without a start token all but the first token.
    NaN where it does not give the log-probability of a token.

    Args:
        size: UTF-8 bytes of the text.
    """
    first = 0 if prompt.starts else 1
    left_out = int(prompt.ends[0]) if first and len(prompt.ends) else 0
    logarithms = prompt.logarithms[first:]
    return -float(logarithms.sum()), size - left_out, len(logarithms)
