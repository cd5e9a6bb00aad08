"""One model of a run as a partner in a conversation: its template, its context, its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from distillkit.data.chat_template import TemplateRefusalError
from distillkit.data.conversation import Turn
from distillkit.data.conversation_reader import ConversationReader
from distillkit.device.precision import Compute, autocasting
from distillkit.errors import UsageError
from distillkit.models.answering import Answer, AnswerSettings, answer_endings, write_answer


@dataclass
class ChatPartner:
    """A model that answers.

    Attributes:
        name: "student after", for messages.
        model: on the device of `compute`, in evaluation mode.
        reader: its template and tokenizer.
        compute: the device, and the format of matrix products.
        settings: how answers are drawn.
        seed: of the draws; the same turns and seed give the same answers.
        turns: of the conversation so far.
    """

    name: str
    model: nn.Module
    reader: ConversationReader
    compute: Compute
    settings: AnswerSettings
    seed: int
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new conversation."""
        self.turns = [] if not self.system else [Turn("system", self.system)]
        self._generator = torch.Generator().manual_seed(self.seed)

    def answer(
        self, question: str, show: Callable[[str], None], stop: Callable[[], bool] = lambda: False
    ) -> tuple[Answer, int]:
        """Ask, and remember question and answer.

        Args:
            show: is given the pieces of the answer as they come.
            stop: asked before every token whether to stop here.

        Returns:
            The answer, and how many of the oldest turns were left out because the context is full.

        Raises:
            UsageError: the question alone does not fit into the context, or cannot be read.
            DistillkitError: the model's logits are no numbers.
        """
        asked = [*self.turns, Turn("user", question)]
        prompt, left_out = self._prompt(asked)
        # Weights that are not fp32 are in the format that they compute in already; a CPU writes faster without autocast.
        in_fp32 = next(self.model.parameters()).dtype == torch.float32
        dtype = self.compute.autocast if in_fp32 and self.compute.device.type != "cpu" else None
        with autocasting(self.compute.device, dtype):
            answer = write_answer(
                self.model, self.reader.encoder.tokenizer, prompt, self.endings, self._room(len(prompt)),
                device=self.compute.device, generator=self._generator, table=self.reader.encoder.table, show=show,
                stop=stop,
            )  # fmt: skip
        self.turns = [*asked, Turn("assistant", answer.text)]
        return answer, left_out

    @property
    def endings(self) -> frozenset[int]:
        """What ends an answer."""
        return answer_endings(self.model, self.reader)

    def _prompt(self, turns: Sequence[Turn]) -> tuple[list[int], int]:
        """What the model reads, without the oldest turns where all do not fit."""
        first = 1 if turns and turns[0].role == "system" else 0
        for begin in range(first, len(turns)):
            if turns[begin].role != "user":
                continue
            try:
                ids = self.reader.prompt_ids([*turns[:first], *turns[begin:]])
            except TemplateRefusalError as error:
                raise UsageError(f"the chat template cannot render this conversation: {error}") from error
            if ids is None or not self.reader.encoder.can_read(ids):
                raise UsageError("the model's tokenizer cannot read this", hint="ask it in other words")
            if self._fits(len(ids)):
                return ids, begin - first
        raise UsageError(
            f"the question does not fit into the model's context of {self.reader.encoder.context} tokens",
            hint="ask a shorter one",
        )

    def _fits(self, tokens: int) -> bool:
        context = self.reader.encoder.context
        # Something has to be left for the answer: what was asked for, but no more than half of the context.
        return context is None or tokens + min(self.settings.longest, context // 2) <= context

    def _room(self, tokens: int) -> AnswerSettings:
        context = self.reader.encoder.context
        if context is None:
            return self.settings
        longest = min(self.settings.longest, context - tokens)
        return AnswerSettings(self.settings.temperature, self.settings.top_p, longest)
