"""A model's answer, token by token, as text that can be shown while it is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from distillkit.alignment.spelling import is_decoded_by_bytes, spelled_after
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.data.conversation_reader import ConversationReader
from distillkit.models.decoding import Decoding, choose_tokens, token_logits

# Tokens of the prompt that are decoded with the answer: SentencePiece drops the space before the first word it decodes.
_BEFORE = 6
# As transformers writes bytes that are no character (yet).
_NO_CHARACTER = "\ufffd"

Finish = Literal["end", "length", "stopped"]


@dataclass(frozen=True)
class AnswerSettings:
    """How an answer is drawn.

    Attributes:
        temperature: divides the logits; 0 for greedy decoding.
        top_p: the share of probability that is sampled from.
        longest: tokens after which an answer is cut off.

    Raises:
        ValueError: a value that nothing can be drawn with.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    longest: int = 512

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.longest < 1:
            raise ValueError(f"temperature {self.temperature}, top_p {self.top_p}, longest {self.longest}")


@dataclass(frozen=True)
class Answer:
    """What a model has answered.

    Attributes:
        text: without the token that ended it.
        tokens: that it has, the ending one not counted.
        finish: "end": the model ended it; "length": it was cut off; "stopped": it was asked to stop.
        seconds: reading the prompt included.
    """

    text: str
    tokens: int
    finish: Finish
    seconds: float


def answer_endings(model: nn.Module, reader: ConversationReader) -> frozenset[int]:
    """What ends an answer: the template's end of turn, and what tokenizer and model call their end of text."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    of_model = configured if isinstance(configured, (list, tuple)) else [configured]
    ends = [reader.template.end_id, reader.encoder.end_id, *of_model]
    return frozenset(int(token) for token in ends if token is not None)


class TextPieces:
    """The text of tokens that come one by one, in pieces that later tokens do not change.

    A piece is held back while its last character is incomplete. The tokens around it are decoded together, as vLLM and
    text-generation-inference do, because what a token says may depend on the one before.

    Args:
        tokenizer: of transformers.
        prompt: the tokens before the first one.
        table: the bytes of its tokens, for tokenizers that cannot decode them themselves.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], table: TokenBytes | None = None) -> None:
        self._tokenizer = tokenizer
        self._table = table if is_decoded_by_bytes(tokenizer, table) else None
        self._ids = list(prompt[-_BEFORE:])
        self._begin, self._read = 0, len(self._ids)

    def put(self, token: int) -> str:
        """The text that is certain now, often empty."""
        self._ids.append(token)
        return self._new(whole=False)

    def rest(self) -> str:
        """What was held back, without bytes that have become no character."""
        return self._new(whole=True).rstrip(_NO_CHARACTER)

    def _new(self, *, whole: bool) -> str:
        known = self._text(self._ids[self._begin : self._read])
        text = self._text(self._ids[self._begin :])
        if not whole and (len(text) <= len(known) or text.endswith(_NO_CHARACTER)):
            return ""
        self._begin, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def _text(self, ids: list[int]) -> str:
        if self._table is not None:
            return spelled_after(self._table, [], ids, names=False)
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def write_answer(
    model: nn.Module,
    tokenizer: Any,
    prompt: Sequence[int],
    endings: Collection[int],
    settings: AnswerSettings,
    *,
    device: torch.device,
    generator: torch.Generator | None = None,
    table: TokenBytes | None = None,
    show: Callable[[str], None] = lambda piece: None,
    stop: Callable[[], bool] = lambda: False,
) -> Answer:
    """Let a model answer.

    Args:
        model: a causal language model on `device`, in evaluation mode.
        prompt: token ids up to where the answer begins; with `settings.longest` they fit into the model's context.
        endings: tokens of which the first ends the answer.
        generator: of the CPU; unused at temperature 0.
        table: as for `TextPieces`.
        show: is given each piece of text as it becomes certain; together they are the text.
        stop: asked before every token whether to stop here.

    Raises:
        DistillkitError: logits that are no numbers.
    """
    began = time.monotonic()
    # What ends answers is a token, wherever it lies.
    vocabulary = max(len(tokenizer), 1 + max(endings, default=0))
    pieces, said, count = TextPieces(tokenizer, prompt, table), [], 0
    finish: Finish = "length"
    unfinished = torch.ones(1, dtype=torch.bool, device=device)

    def say(piece: str) -> None:
        if piece:
            said.append(piece)
            show(piece)

    with torch.inference_mode():
        text = Decoding(model, [prompt], device)
        while count < settings.longest:
            if stop():
                finish = "stopped"
                break
            logits = token_logits(text.logits(), vocabulary, "the model's")
            chosen = choose_tokens(logits, settings.temperature, settings.top_p, generator)
            if int(chosen) in endings:
                finish = "end"
                break
            count += 1
            say(pieces.put(int(chosen)))
            if count < settings.longest:
                text.append(chosen, unfinished)
    say(pieces.rest())
    return Answer("".join(said), count, finish, time.monotonic() - began)
