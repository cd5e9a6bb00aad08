"""One model goes on with a text, or answers a question, and what is to be said of what it wrote."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distillkit.alignment.spelling import is_decoded_by_bytes, spelled_after
from distillkit.chatting.sampling import Sampling
from distillkit.console import sanitize
from distillkit.data.conversation import Turn
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.text_encoder import TextEncoder
from distillkit.device.precision import Compute, autocasting
from distillkit.errors import DistillkitError, UsageError
from distillkit.teachers.continuation_filter import MOST_REPEATED, reason_to_drop, repeated_share


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        text: escape sequences stripped.
        tokens: that it has, one that ends the text not counted.
        seconds: reading the prompt included.
        finish: "end": the model ended it; "length": it was cut off; "stopped": it was asked to stop.
    """

    text: str
    tokens: int
    seconds: float
    finish: str

    def record(self) -> dict[str, Any]:
        """For JSON: `fault` is "empty", "not text" or "repetition" by the rules that filter a teacher's texts, else None;
        `repeated_share` is that of its pieces of 20 characters that occurred in it before. What is too short to be dropped for
        its repetition is named for it all the same."""
        share = repeated_share(self.text)
        fault = reason_to_drop(self.text) or ("repetition" if share > MOST_REPEATED else None)
        return {"tokens": self.tokens, "finish": self.finish, "fault": fault, "repeated_share": round(share, 3)}


@dataclass(frozen=True)
class Writer:
    """A model of a run that writes.

    Attributes:
        model: on the device of `compute`, in evaluation mode.
        reader: how it reads conversations, where it shall answer and not go on.
    """

    model: nn.Module
    encoder: TextEncoder
    compute: Compute
    reader: ConversationReader | None = None

    def write(self, prompt: str, sampling: Sampling, stop: Callable[[], bool] = lambda: False) -> Written:
        """Go on with `prompt`, or answer it.

        Args:
            stop: asked before every token whether to stop here.

        Raises:
            UsageError: the prompt has what the model cannot read.
            DistillkitError: the model cannot write.
        """
        new_tokens, ids = self._read(prompt, sampling.new_tokens)
        inputs = torch.tensor([ids], device=self.compute.device)
        # Weights that are not fp32 are in the format that they compute in already; a CPU writes faster without autocast.
        in_fp32 = next(self.model.parameters()).dtype == torch.float32
        dtype = self.compute.autocast if in_fp32 and self.compute.device.type != "cpu" else None
        ends, tokenizer, stopped = self._ends(), self.encoder.tokenizer, False

        def stopping(input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
            nonlocal stopped
            stopped = stop()
            return torch.full((len(input_ids),), stopped, device=input_ids.device)

        torch.manual_seed(sampling.seed)
        began = time.perf_counter()
        with torch.inference_mode(), autocasting(self.compute.device, dtype), _explained(self.model):
            output = self.model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=new_tokens,
                return_dict_in_generate=False, stopping_criteria=[stopping], **sampling.for_generate(),
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
                **({"eos_token_id": ends} if ends else {}),
            )  # fmt: skip
            written: list[int] = output[0][len(ids) :].tolist()
        seconds = time.perf_counter() - began
        ended = bool(written) and written[-1] in ends
        finish = "end" if ended else "stopped" if stopped else "length"
        return Written(self._text(ids, written), len(written) - ended, seconds, finish)

    def _read(self, prompt: str, new_tokens: int) -> tuple[int, list[int]]:
        """How many tokens there is room for, and what the model reads."""
        longest = self.encoder.limit
        if self.encoder.context is not None:
            new_tokens = max(1, min(new_tokens, self.encoder.context // 2))
            longest = max(1, min(longest, self.encoder.context - new_tokens))
        asked = None if self.reader is None else self.reader.prompt_ids([Turn("user", prompt)])
        ids = (asked or self.encoder.with_specials(self.encoder.token_ids(prompt), ends=False))[-longest:]
        if not self.encoder.can_read(ids):
            tokenizer: Any = self.encoder.tokenizer
            raise UsageError(
                f"the prompt has {tokenizer.decode([max(ids)])!r}, which the model's embedding has no row for",
                hint="leave it out of the prompt",
            )
        return new_tokens, ids

    def _ends(self) -> list[int]:
        """The tokens that end a text: what the model's settings name, and that of its template, which they may not name yet."""
        named = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ends = {*(named if isinstance(named, list) else [] if named is None else [named])}
        return sorted(ends if self.reader is None else {*ends, self.reader.template.end_id})

    def _text(self, read: list[int], written: list[int]) -> str:
        tokenizer: Any = self.encoder.tokenizer
        table = self.encoder.table
        if table is not None and is_decoded_by_bytes(tokenizer, table):
            return sanitize(spelled_after(table, read, written, names=False))
        # Decoded together with the prompt: SentencePiece drops the space before the first word that it decodes.
        whole, beginning = (
            tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for ids in (read + written, read)
        )
        return sanitize(whole.removeprefix(beginning))


@contextlib.contextmanager
def _explained(model: nn.Module) -> Iterator[None]:
    """Drawing from what is no probability ends in an error that names no cause."""
    try:
        yield
    except RuntimeError as error:
        if all(bool(torch.isfinite(weights).all()) for weights in model.parameters()):
            raise
        raise DistillkitError(
            "a model has weights that are not numbers (NaN or infinity): it cannot write", hint="get its files again"
        ) from error
