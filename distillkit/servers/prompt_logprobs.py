"""The likeliest tokens at every place of a prompt, as servers give them in two ways.

    {"prompt_logprobs": K}              vLLM: for each token of the prompt a mapping of token ids to logprob and decoded_token
    {"echo": true, "logprobs": K}       OpenAI's older completions, and those who follow them: tokens as strings

The prompt is sent as token ids of the student, so that nobody has to cut a text in the same way; the answer must spell these
tokens, else the server has another vocabulary. Tokens of the answer are told by their bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distillkit.servers.replies import MalformedReplyError

Way = Literal["prompt_logprobs", "echo"]
WAYS: tuple[Way, ...] = ("prompt_logprobs", "echo")

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_TOKEN_ID = re.compile(r"token_id:([0-9]+)")
# What stands for bytes that are no whole character.
UNKNOWN = "\ufffd"


class OtherVocabularyError(Exception):
    """The server's tokens are not those that were sent."""


@dataclass(frozen=True)
class Likeliest:
    """The server's distributions over the next token, at each place of a prompt but the last.

    Attributes:
        counts: [R] entries of each place: those that it gives, and the token that follows.
        ids: [E] the student's ids, different at a place; probabilities: [E] float64.
        unknown: the probability of tokens that the student has no id for, over all places.
    """

    counts: np.ndarray
    ids: np.ndarray
    probabilities: np.ndarray
    unknown: float


class Vocabulary:
    """The student's tokens, by what they spell.

    Args:
        pieces: by id, the bytes of a token; None for special and unused ones.
        specials: the special tokens, id -> name.
        shadowed: ids whose bytes another one spells, which is the one that is written.
    """

    def __init__(
        self, pieces: Sequence[bytes | None], specials: Mapping[int, str], shadowed: frozenset[int] = frozenset()
    ) -> None:
        self.pieces = pieces
        self.specials = specials
        self._ids: dict[bytes, int] = {}
        for index, piece in enumerate(pieces):
            if piece is not None and (piece not in self._ids or self._ids[piece] in shadowed):
                self._ids[piece] = index
        self._names = {name: index for index, name in specials.items()}

    def id_of(self, token: str) -> int | None:
        """The id of a token as servers spell it: a text, `<0xE2>`, `bytes:\\xe2\\x80` (OpenAI), `token_id:17` (vLLM); None
        where it has none, or where its bytes cannot be told."""
        if token in self._names:
            return self._names[token]
        if (match := _TOKEN_ID.fullmatch(token)) is not None:
            index = int(match[1])
            return index if index < len(self.pieces) else None
        piece = spelled(token)
        return None if piece is None else self._ids.get(piece)

    def may_be(self, token: str, index: int) -> bool:
        """Whether a token as a server spells it can be this one; yes where its bytes cannot be told."""
        if index in self.specials:
            return token in ("", self.specials[index]) or _TOKEN_ID.fullmatch(token) is not None
        if (match := _TOKEN_ID.fullmatch(token)) is not None:
            return int(match[1]) == index
        piece = spelled(token)
        # SentencePiece's space in front of a text, which some servers leave out.
        return piece is None or piece == self.pieces[index] or b" " + piece == self.pieces[index]


def spelled(token: str, *, marks: bool = True) -> bytes | None:
    """The bytes of a token as servers spell it: a text, `<0xE2>`, `bytes:\\xe2\\x80`; None where they are not told.

    Args:
        marks: whether `▁` is a space.
    """
    if (match := _BYTE.fullmatch(token)) is not None:
        return bytes([int(match[1], 16)])
    if token.startswith("bytes:"):
        escaped = token.removeprefix("bytes:")
        return bytes(int(pair, 16) for pair in re.findall(r"\\x([0-9a-fA-F]{2})", escaped))
    if UNKNOWN in token or _TOKEN_ID.fullmatch(token) is not None:
        return None
    return (token.replace("▁", " ") if marks else token).encode()


def question(way: Way, ids: Sequence[int], size: int) -> dict[str, Any]:
    """What is asked of `/completions`. One token is written and left out: with none some servers write without an end."""
    body: dict[str, Any] = {"prompt": list(ids), "max_tokens": 1, "temperature": 1.0}
    return body | ({"prompt_logprobs": size} if way == "prompt_logprobs" else {"echo": True, "logprobs": size})


def likeliest(way: Way, content: Any, ids: Sequence[int], vocabulary: Vocabulary) -> Likeliest:
    """The distributions in an answer to `question`.

    Raises:
        MalformedReplyError: there are none in it.
        OtherVocabularyError: they are about other tokens.
    """
    places, _ = places_of(way, content)
    if len(places) < len(ids):
        raise MalformedReplyError(f"it has log-probabilities for {len(places)} of {len(ids)} tokens")
    counts, all_ids, probabilities, unknown = [], [], [], 0.0
    for own, place in zip(ids[1:], places[1 : len(ids)], strict=True):
        # The token is known here, wherever it stands among those of vLLM.
        there = Place(None, None, place.others) if way == "prompt_logprobs" else place
        found, left_out = _entries(own, there, vocabulary)
        counts.append(len(found))
        all_ids += found
        probabilities += found.values()
        unknown += left_out
    return Likeliest(
        np.array(counts, dtype=np.int64), np.array(all_ids, dtype=np.int64), np.array(probabilities), unknown
    )


@dataclass(frozen=True)
class Place:
    """What a server says of one token of the prompt: its spelling (None: not told), its logarithm, and the likeliest there, with
    their ids where they have any."""

    token: str | None
    logarithm: float | None
    others: Sequence[tuple[int | None, str, float]]


def _entries(own: int, place: Place, vocabulary: Vocabulary) -> tuple[dict[int, float], float]:
    found: dict[int, float] = {}
    unknown = 0.0
    if place.token is not None and not vocabulary.may_be(place.token, own):
        raise OtherVocabularyError(f"{place.token!r} stands where the student reads token {own}")
    if place.logarithm is not None:
        found[own] = math.exp(place.logarithm)
    for index, token, logarithm in place.others:
        probability = math.exp(min(0.0, logarithm))
        if probability == 0:
            continue
        if index is None:
            index = vocabulary.id_of(token)
        elif index >= len(vocabulary.pieces):
            index = None
        elif not vocabulary.may_be(token, index):
            raise OtherVocabularyError(f"{token!r} is token {index} there")
        if index is None:
            # The token that follows may be among them in a spelling that tells nothing: it counts once.
            same = place.logarithm is not None and token == place.token and logarithm == place.logarithm
            unknown += 0.0 if same else probability
        else:
            found[index] = probability
    return found, unknown


def places_of(way: Way, content: Any) -> tuple[list[Place], Place | None]:
    """What a server says of every token of a prompt, of `echo` with the token that is written after it; of `prompt_logprobs` the
    latter apart, where it was asked for.

    Raises:
        MalformedReplyError: there are no log-probabilities in it.
    """
    choices = content.get("choices") if isinstance(content, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise MalformedReplyError("it has no choices")
    if way == "echo":
        return _of_echo(choice), None
    written = _of_echo(choice) if isinstance(choice.get("logprobs"), dict) else []
    return _of_vllm(choice, content), written[0] if written else None


def _of_vllm(choice: Mapping[str, Any], content: Mapping[str, Any]) -> list[Place]:
    given = choice.get("prompt_logprobs", content.get("prompt_logprobs"))
    if not isinstance(given, list):
        raise MalformedReplyError("it has no prompt_logprobs")
    places = []
    for place in given:
        others: list[tuple[int | None, str, float]] = []
        for index, entry in (place or {}).items():
            if not isinstance(entry, dict) or not isinstance(entry.get("logprob"), int | float) or not index.isdigit():
                raise MalformedReplyError("its prompt_logprobs are of another form")
            others.append((int(index), str(entry.get("decoded_token") or ""), float(entry["logprob"])))
        # The token of the prompt comes first, then the likeliest.
        own = others[0] if others else None
        places.append(Place(*((None, None) if own is None else own[1:]), others))
    return places


def _of_echo(choice: Mapping[str, Any]) -> list[Place]:
    given = choice.get("logprobs")
    names = ("tokens", "token_logprobs", "top_logprobs")
    if not isinstance(given, dict) or not all(isinstance(given.get(name), list) for name in names):
        raise MalformedReplyError("it has no log-probabilities of the prompt")
    places = []
    for token, logarithm, top in zip(*(given[name] for name in names), strict=False):
        others = [(None, str(name), float(value)) for name, value in (top or {}).items()]
        places.append(Place(str(token), None if logarithm is None else float(logarithm), others))
    return places
