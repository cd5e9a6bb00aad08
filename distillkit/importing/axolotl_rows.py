"""Rows of axolotl's plugin for distillation: conversations, and what was likely at each token of the last answer.

https://github.com/axolotl-ai-cloud/axolotl, `integrations/kd/chat_template.py`. The conversation is written in the tokenizer's chat
template; the log-probabilities belong to its last tokens, each to the token at its own place, as vLLM gives them for what it has
written. A template may write something behind the end of turn, such as a line end, which no answer has: then they end
before it. vLLM always tells the token itself, too, so where they end is known from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distillkit.importing.sequences import BadRowError, ScoredSequence, scored_sequence

_TOLERANCE = 0.02
# Tokens that a template may write behind an answer's last one.
_MOST_BEHIND = 4
_PREFIX = "token_id:"


def axolotl_sequence(
    row: Mapping[str, Any], tokenizer: Any, vocabulary: int, *, logprobs: str, messages: str
) -> Iterator[ScoredSequence]:
    """The conversation of a row.

    Args:
        tokenizer: the teacher's, with a chat template.
        logprobs, messages: the columns of these.

    Raises:
        BadRowError: the row is of another form, or cannot be used.
    """
    for name in (logprobs, messages):
        if row.get(name) is None:
            raise BadRowError(f"it has no {name}", hint="say which columns: --logprobs-column, --messages-column")
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in row[messages]]
    ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    known = _known(row, logprobs)
    if len(known) > len(ids):
        raise BadRowError(f"{len(known)} places of log-probabilities for {len(ids)} tokens of the conversation")
    behind = _behind(ids, known)
    places = [None] * (len(ids) - len(known) - behind) + known + [None] * behind
    yield scored_sequence(ids, places, {"messages": turns}, vocabulary=vocabulary, tolerance=_TOLERANCE)


def _known(row: Mapping[str, Any], logprobs: str) -> list[tuple[Any, Any] | None]:
    """Ids and log-probabilities of each place, in the older form of entries or the newer one of two columns."""
    places = row[logprobs]
    apart = row.get("target_token_ids")
    if apart is not None:
        if len(apart) != len(places):
            raise BadRowError(f"{len(apart)} places of target_token_ids and {len(places)} of {logprobs}")
        return [None if not values else (ids, values) for ids, values in zip(apart, places, strict=True)]
    return [None if not entries else _entries(entries, place) for place, entries in enumerate(places)]


def _entries(entries: Sequence[Any], place: int) -> tuple[list[int], list[float]]:
    try:
        names = [entry["token"] for entry in entries]
        if all(name.startswith(_PREFIX) for name in names):
            return [int(name.removeprefix(_PREFIX)) for name in names], [entry["logprob"] for entry in entries]
    except (TypeError, KeyError, AttributeError, ValueError):
        pass  # As below: it is of another form.
    raise BadRowError(
        f"place {place}: an entry is no {{token: token_id:NUMBER, logprob: …}}",
        hint="ask vLLM with return_tokens_as_token_ids, or give target_token_ids as a column",
    )


def _behind(ids: Sequence[int], known: Sequence[tuple[Any, Any] | None]) -> int:
    """How many tokens stand behind the last one of which something is known.

    Raises:
        BadRowError: wherever they end, some do not tell the token at their place.
    """
    for behind in range(min(_MOST_BEHIND, len(ids) - len(known)) + 1):
        own = ids[len(ids) - len(known) - behind : len(ids) - behind]
        if all(place is None or token in np.asarray(place[0]) for token, place in zip(own, known, strict=True)):
            return behind
    raise BadRowError(
        "its log-probabilities are not those of the conversation's last tokens: at some place the token itself is missing",
        hint="is --tokenizer the teacher's, and its chat template the one that the rows were made with?",
    )
