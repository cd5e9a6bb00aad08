"""The share of answers that a model ends by itself: a chat model that never stops is of no use, whatever its likelihoods are.

Greedy, so that nothing depends on luck, and several questions at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distillkit.console import ProgressHandle
from distillkit.data.chat_template import TemplateRefusalError
from distillkit.data.conversation import Conversation
from distillkit.data.conversation_reader import ConversationReader
from distillkit.evaluation.batched_forward import default_batch_tokens, token_by_token
from distillkit.interrupts import check_interrupted
from distillkit.models.decoding import Decoding, choose_tokens, token_logits
from distillkit.words import say

# Questions to each model, and tokens after which an answer is cut off.
QUESTIONS, LONGEST_ANSWER = 24, 128
# Seconds for each model: of a large one on a small machine a few answers are enough.
ANSWERING_SECONDS = 60.0
# How many tell how long the others would take.
_FIRST = 4
# A student is warned of that ends so much smaller a share of its answers, where chance does not explain it.
_MUCH_LESS, _STANDARD_ERRORS = 0.2, 2.0


@dataclass(frozen=True)
class Answers:
    """How a model has answered.

    Attributes:
        asked: questions.
        stopped: answers that it ended by itself.
        tokens: of all answers, the ending ones not counted.
        limit: tokens after which an answer is cut off.
    """

    asked: int
    stopped: int
    tokens: int
    limit: int

    def record(self) -> dict[str, Any]:
        """For validation.json."""
        return {
            "asked": self.asked,
            "stopped": self.stopped,
            "share": self.stopped / self.asked,
            "mean_tokens": self.tokens / self.asked,
            "limit": self.limit,
        }


@dataclass(frozen=True)
class Questions:
    """The same questions as each model reads them.

    Attributes:
        student, teacher: token ids up to where the answer begins.
        limit: tokens of an answer; with them every question fits into both contexts.
    """

    student: list[list[int]]
    teacher: list[list[int]]
    limit: int


def held_out_questions(
    examples: Iterable[Mapping[str, Any]], student: ConversationReader, teacher: ConversationReader, longest: int
) -> Questions:
    """What is asked: of held-out conversations all turns but the last answer, one for each document, in their order.

    Left out is what one of the models cannot read, or what leaves no room for an answer in its context.

    Args:
        longest: tokens of an answer at most; no more than half of a context.
    """
    readers = student, teacher
    contexts = [reader.encoder.context for reader in readers if reader.encoder.context is not None]
    limit = max(1, min(LONGEST_ANSWER, longest, *(context // 2 for context in contexts)))
    found = Questions([], [], limit)
    documents: set[int] = set()
    for example in examples:
        if len(found.student) == QUESTIONS:
            break
        if example["document"] in documents:
            continue
        documents.add(example["document"])
        conversation = Conversation.from_canonical(example["text"])
        ids = [_readable(reader, conversation, limit) for reader in readers]
        if ids[0] is not None and ids[1] is not None:
            found.student.append(ids[0])
            found.teacher.append(ids[1])
    return found


def _readable(reader: ConversationReader, conversation: Conversation, limit: int) -> list[int] | None:
    try:
        ids = reader.prompt_ids(conversation.prompt)
    except TemplateRefusalError:
        return None
    context = reader.encoder.context
    if not ids or not reader.encoder.can_read(ids) or (context is not None and len(ids) + limit > context):
        return None
    return ids


def ask(
    model: nn.Module,
    questions: Sequence[Sequence[int]],
    endings: Collection[int],
    *,
    vocabulary: int,
    limit: int,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    seconds: float = ANSWERING_SECONDS,
    progress: ProgressHandle | None = None,
) -> Answers:
    """Let a model answer, and count the answers that it ends.

    A few questions come first. If all would take longer than `seconds`, only as many more are asked as fit.

    Args:
        model: a causal language model on `device`; its training mode is restored.
        questions: token ids, at least one question; with `limit` more they fit into the context.
        endings: tokens of which the first ends an answer.
        vocabulary: how many columns of the head are tokens.
        limit: tokens after which an answer is cut off.
        autocast_dtype: the format of matrix products; None for that of the weights.
        progress: advanced by the number of questions answered.

    Raises:
        DistillkitError: logits that are no numbers.
        Interrupted: a signal arrived.
    """
    at_once = max(1, default_batch_tokens(model) // max(map(len, questions)))
    began, asked, stopped, tokens = time.monotonic(), 0, 0, 0
    count = min(_FIRST, at_once)
    with token_by_token(model, device, autocast_dtype):
        while asked < len(questions) and count > 0:
            batch = questions[asked : asked + count]
            lengths, ended = _answer_lengths(model, batch, endings, vocabulary, limit, device)
            asked, stopped, tokens = asked + len(batch), stopped + sum(ended), tokens + sum(lengths)
            if progress is not None:
                progress.advance(len(batch))
            spent = max(time.monotonic() - began, 1e-9)
            count = min(at_once, int(asked * (seconds - spent) / spent))
    return Answers(asked, stopped, tokens, limit)


def _answer_lengths(
    model: nn.Module,
    questions: Sequence[Sequence[int]],
    endings: Collection[int],
    vocabulary: int,
    limit: int,
    device: torch.device,
) -> tuple[list[int], list[bool]]:
    """The tokens of each answer, and whether the model ended it."""
    texts = Decoding(model, questions, device)
    lengths, ended = [0] * len(questions), [False] * len(questions)
    for _ in range(limit):
        check_interrupted()
        chosen = choose_tokens(token_logits(texts.logits(), vocabulary, "the answering model's"), 0, 1, None)
        for row, token in enumerate(chosen.tolist()):
            if not ended[row]:
                ended[row] = token in endings
                lengths[row] += not ended[row]
        if all(ended) or max(lengths) == limit:
            break
        texts.append(chosen, torch.tensor([not end for end in ended], device=device))
    return lengths, ended


def stopping_problem(teacher: Mapping[str, Any] | None, student: Mapping[str, Any] | None, lang: str = "en") -> str:
    """A sentence where the student ends much fewer of its answers than the teacher; else "".

    Args:
        teacher, student: what `Answers.record` gave; None where a model was not asked.
    """
    if teacher is None or student is None:
        return ""
    less = teacher["share"] - student["share"]
    asked = teacher["asked"], student["asked"]
    together = (teacher["stopped"] + student["stopped"]) / sum(asked)
    # Of two equal shares, the difference that is drawn (the test of two proportions).
    error = math.sqrt(together * (1 - together) * (1 / asked[0] + 1 / asked[1]))
    if less < _MUCH_LESS or less < _STANDARD_ERRORS * error:
        return ""
    return say(
        lang, "stopping", stopped=student["stopped"], asked=student["asked"], limit=student["limit"],
        theirs=teacher["stopped"], theirs_asked=teacher["asked"],
    )  # fmt: skip
