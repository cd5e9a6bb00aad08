"""The score of a teacher behind a server, where that gives the log-probabilities of prompts: bits per byte of held-out texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillkit.alignment.turns import tokens_of
from distillkit.console import Console
from distillkit.data.conversation import Conversation
from distillkit.data.conversation_reader import ConversationReader, ReadConversation
from distillkit.data.text_encoder import TextEncoder
from distillkit.errors import DistillkitError, Interrupted
from distillkit.evaluation.bits_per_byte import ScoredText, Scores, by_document
from distillkit.evaluation.held_out import scored_texts
from distillkit.servers.in_order import answers_in_order
from distillkit.servers.opening import check_server, open_client
from distillkit.servers.prompt_logprobs import Likeliest
from distillkit.servers.spelled_prompt import SpelledPrompt, prompt_nll
from distillkit.settings.parameters import Parameters
from distillkit.teachers.served_prompts import Asked, find_asker

Span = tuple[int, int]


class _UnscoredError(DistillkitError):
    """Without this text the teacher's score is none of the same texts."""


@dataclass(frozen=True)
class _HeldOut:
    """A held-out text as a server is asked about it.

    Attributes:
        scored: as the student reads it.
        spans: of a conversation that is sent as a text, the bytes that are scored; None: all of the text.
    """

    asked: Asked
    scored: ScoredText
    spans: list[Span] | None


def served_scores(
    config: Parameters, encoder: TextEncoder, reader: ConversationReader | None, examples: Sequence[dict[str, Any]],
    console: Console,
) -> Scores | None:  # fmt: skip
    """What the server makes of held-out texts; None, after it has been said why, where it does not tell.

    With the student's vocabulary it reads the student's tokens, start token included. With another one it reads the texts, and
    without a start token the first token of each is left out, as for a model without one. Conversations are as the
    student's template renders them.

    Args:
        encoder: how the student reads; reader: how it reads conversations, None where the texts are none.

    Raises:
        Interrupted: a signal arrived.
    """
    client = open_client(config)
    try:
        found = check_server(client, console)
        texts = list(_held_out(encoder, reader, examples))
        asker = find_asker(client, encoder.table, 1, [text.asked for text in texts[:3]])
        if not asker.by_ids and any(text.asked.text is None for text in texts):
            raise _UnscoredError("it has another vocabulary, and a conversation that is cut is sent as tokens")
        console.info(f"the teacher {client.model} {found}: the held-out texts are sent there, to measure it")

        def measured(text: _HeldOut) -> tuple[float, ScoredText]:
            by_ids = asker.by_ids
            return _by_ids(text, asker.likeliest(text.asked)) if by_ids else _by_bytes(text, asker.spelled(text.asked))

        scored: list[ScoredText] = []
        nll: list[float] = []
        with console.progress("validating the teacher", total=len(texts), unit="texts") as progress:
            for nats, counted in answers_in_order(measured, texts, config.teacher_concurrency, lambda: None):
                nll.append(nats)
                scored.append(counted)
                progress.advance(1)
        return by_document(scored, np.array(nll))
    except Interrupted:
        raise
    except DistillkitError as error:
        console.info(f"the teacher is behind a server and is not measured, only the student is: {error.message}")
        return None
    finally:
        client.close()


def _held_out(
    encoder: TextEncoder, reader: ConversationReader | None, examples: Sequence[dict[str, Any]]
) -> Iterator[_HeldOut]:
    for example, scored in zip(examples, scored_texts(examples, encoder, "student"), strict=True):
        if reader is None:
            yield _HeldOut(Asked(scored.ids, example["text"]), scored, None)
            continue
        read = reader.read(Conversation.from_canonical(example["text"]).turns)
        spans = None if read is None or read.ids != list(scored.ids) else _contents(read, scored)
        # One that was cut at its end is not what its template renders.
        text = None if read is None or spans is None else read.data.decode()
        yield _HeldOut(Asked(scored.ids, text), scored, spans)


def _contents(read: ReadConversation, scored: ScoredText) -> list[Span] | None:
    """The bytes of the contents that are scored; None where these are not whole contents."""
    by_tokens = {read.tokens(turn.content): turn.content for turn in read.turns if turn.content is not None}
    spans = [by_tokens.get((first, last)) for first, last in scored.spans]
    return None if None in spans else [span for span in spans if span is not None]


def _by_ids(text: _HeldOut, answer: Likeliest) -> tuple[float, ScoredText]:
    """(nats, what was scored) of a text in the student's tokens."""
    begins = np.concatenate([[0], np.cumsum(answer.counts)])
    nats = 0.0
    for first, last in text.scored.spans:
        for place in range(first, last):
            # Row r predicts token r + 1.
            row = slice(begins[place - 1], begins[place])
            own = answer.probabilities[row][answer.ids[row] == text.scored.ids[place]]
            if len(own) != 1 or own[0] <= 0:
                raise _UnscoredError("it leaves out the log-probabilities of some tokens")
            nats -= math.log(own[0])
    return nats, text.scored


def _by_bytes(text: _HeldOut, answer: SpelledPrompt | None) -> tuple[float, ScoredText]:
    """The same of a text in the server's own tokens."""
    if answer is None:
        raise _UnscoredError("its tokens do not spell one of the held-out texts")
    if text.spans is None:
        nats, size, tokens = prompt_nll(answer, len((text.asked.text or "").encode()))
    else:
        ranges = [tokens_of(answer.ends, *span) for span in text.spans]
        nats = -sum(float(answer.logarithms[first:last].sum()) for first, last in ranges)
        size, tokens = text.scored.bytes, sum(last - first for first, last in ranges)
    if math.isnan(nats):
        raise _UnscoredError("it leaves out the log-probabilities of some tokens")
    return nats, ScoredText([0] * (tokens + 1), [(1, tokens + 1)], size if tokens else 0, text.scored.document)
