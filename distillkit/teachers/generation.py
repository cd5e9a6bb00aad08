"""Black box: a local causal language model continues prompts; every continuation goes to a JSONL file at once.

What a batch contains and the random numbers that it draws depend on the settings and the number of the batch alone, so
an interrupted generation that is continued writes the same bytes as an undisturbed one. The settings lie beside the
file in `<name>.settings.json`; a file from other settings is never continued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillkit.alignment.spelling import is_decoded_by_bytes, spelled_after
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.console import Console, ProgressHandle
from distillkit.errors import DistillkitError
from distillkit.evaluation.length_batches import longest_first
from distillkit.interrupts import check_interrupted
from distillkit.models.decoding import Decoding, choose_tokens, token_logits
from distillkit.models.decoding_ways import decoding_way
from distillkit.storage import write_json
from distillkit.teachers.continuation_filter import ContinuationFilter
from distillkit.teachers.generated_file import (
    Continuation,
    GeneratedFile,
    Prompt,
    answers_setting,
    prompts_fingerprint,
    settings_path_of,
)
from distillkit.teachers.generation_cache import GenerationCache

# Of the lines and of how they come about; raised when either changes, the filter's judgement included.
_FORMAT = 3


@dataclass(frozen=True)
class Sampling:
    """How continuations are drawn; they depend on all of this.

    Attributes:
        temperature: divides the logits; 0 for greedy decoding.
        top_p: the share of probability that is sampled from.
        seed: of the draws.
        batch_size: prompts that are computed at once, of like lengths.
        accumulation: so many of these batches draw as one, as they make up one step of the training: what is written
            depends on the product alone.

    Raises:
        ValueError: a value that nothing can be drawn with.
    """

    temperature: float
    top_p: float
    seed: int
    batch_size: int
    accumulation: int = 1

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.drawn_together < 1:
            raise ValueError(f"temperature {self.temperature}, top_p {self.top_p}, batch_size {self.batch_size}")

    @property
    def drawn_together(self) -> int:
        """Prompts whose random numbers come from one stream."""
        return self.batch_size * self.accumulation


@dataclass(frozen=True)
class _Draws:
    """Random numbers for a batch that is a part of a larger one, see `choose_tokens`."""

    generator: torch.Generator
    part: tuple[int, int]


def generate_continuations(
    load_model: Callable[[], nn.Module],
    tokenizer: Any,
    prompts: Sequence[Prompt],
    room: Sequence[int],
    sampling: Sampling,
    *,
    output: Path,
    device: torch.device,
    console: Console,
    model_fingerprint: str,
    cache: GenerationCache | None = None,
    parse: bool = False,
    table: TokenBytes | None = None,
    judge: ContinuationFilter | None = None,
) -> list[Continuation]:
    """Continue every prompt once (one that stands there several times, as often), or go on where an earlier attempt with the same settings was cut off.

    Args:
        load_model: gives a causal language model on `device`, in evaluation mode; called only if something is left
            to write.
        tokenizer: its tokenizer; PAD and EOS are not needed. Every special token ends a text, unless `parse`: none can be read.
        room: new tokens for each prompt; both together must fit into the model's context.
        output: the JSONL file; its folder exists. One line per prompt, in the order of the batches:
            {index, prompt, continuation, tokens, finish, kept, reason, check}.
        model_fingerprint: of weights and tokenizer.
        cache: finished generations of other runs, None to do without.
        parse: special tokens in texts are read by their names: those that the model writes stand in its texts, and only
            what it calls its end of text ends one.
        table: the bytes of its tokens, for tokenizers that cannot decode them themselves.
        judge: which of them are worth learning; default: of plain texts.

    Returns:
        The continuations in the order of `prompts`, dropped ones included.

    Raises:
        PreconditionError: the file is from other settings.
        DistillkitError: out of memory, disk full, or logits that are no numbers; what is written stays.
        Interrupted: a signal arrived; what is written stays.
    """
    if len(room) != len(prompts) or not all(tokens > 0 for tokens in room):
        raise ValueError("one positive number of new tokens per prompt is needed")
    # Longest first: what does not fit into memory is known at once, and the time left is no underestimate.
    order = longest_first([(len(prompt.ids), tokens) for prompt, tokens in zip(prompts, room, strict=True)])
    settings = {
        "format": _FORMAT,
        "model": model_fingerprint,
        "prompts": prompts_fingerprint(prompts, room),
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "seed": sampling.seed,
        "batch_size": sampling.drawn_together,
        **answers_setting(prompts),
        **({"special_tokens": "parse"} if parse else {}),
        **({"decoded": "bytes"} if is_decoded_by_bytes(tokenizer, table) else {}),
    }
    if cache is not None and not output.is_file():
        write_json(settings_path_of(output), settings)
        cache.fetch(output, settings)
    batch_size = sampling.batch_size
    file = GeneratedFile(output, settings, [prompts[number] for number in order], batch_size, console)
    judge = judge or ContinuationFilter()
    for done, number in zip(file.reused, order, strict=False):
        if done.kept:
            judge.remember(prompts[number].text, done.text)

    written = list(file.reused)
    writer = _Writer(load_model(), tokenizer, sampling, device, parse, table) if len(written) < len(order) else None
    if writer is not None and (words := writer.way.words()) is not None:
        console.info(f"the teacher ({type(writer.model).__name__}): {words}")
    with console.progress("the teacher writes", len(prompts), unit="texts", completed=len(written)) as progress:
        for begin in range(len(written), len(order), batch_size):
            numbers = order[begin : begin + batch_size]
            batch = [prompts[number] for number in numbers]
            assert writer is not None
            draws = _draws(sampling, begin, len(order))
            texts = writer.write(batch, [room[number] for number in numbers], draws, progress)
            continuations = []
            for prompt, (text, tokens, finish) in zip(batch, texts, strict=True):
                reason = judge.judge(prompt.text, text)
                continuations.append(
                    Continuation(prompt.index, text, tokens, finish, reason is None, reason, answer=prompt.answer)
                )
            file.append(batch, continuations)
            written += continuations
            progress.advance(len(batch), kept=sum(continuation.kept for continuation in written))
    if cache is not None:
        cache.publish(output, settings, sum(continuation.tokens for continuation in written))
    return [continuation for _, continuation in sorted(zip(order, written, strict=True), key=lambda pair: pair[0])]


def _draws(sampling: Sampling, begin: int, prompts: int) -> _Draws:
    """Those of the batch that begins with the prompt number `begin` of all `prompts`."""
    together = sampling.drawn_together
    number, first = divmod(begin, together)
    generator = torch.Generator().manual_seed(_batch_seed(sampling.seed, number))
    return _Draws(generator, (first, min(together, prompts - number * together)))


def _batch_seed(seed: int, batch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{batch}".encode()).digest()[:8], "big") >> 1


# --- writing ---------------------------------------------------------------------------------------------------------


class _Writer:
    """Lets the model write the continuations of a batch of prompts."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, sampling: Sampling, device: torch.device, parse: bool,
        table: TokenBytes | None,
    ) -> None:  # fmt: skip
        self.model = model
        self.tokenizer = tokenizer
        self.sampling = sampling
        self.device = device
        self.way = decoding_way(model, device)
        self.endings = _ending_ids(model, tokenizer, parse=parse)
        self.parse = parse
        self.table = table if is_decoded_by_bytes(tokenizer, table) else None
        self.vocabulary = max(
            len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=0), 1 + max(self.endings, default=0)
        )

    def write(
        self, prompts: Sequence[Prompt], room: Sequence[int], draws: _Draws, progress: ProgressHandle
    ) -> list[tuple[str, int, str]]:
        """(text, tokens, finish) of each prompt's continuation."""
        try:
            with torch.inference_mode():
                ids, finishes = self._sample([prompt.ids for prompt in prompts], room, draws, progress)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            # The CPU allocator has no exception class of its own.
            own = isinstance(error, (torch.OutOfMemoryError, MemoryError))
            if not own and "DefaultCPUAllocator" not in str(error) and "MPS backend out of memory" not in str(error):
                raise
            raise DistillkitError(
                f"out of memory while the teacher wrote {len(prompts)} texts at once",
                hint="lower --batch-size or --max-length",
            ) from error
        return [
            (self._text(prompt.ids, new), len(new), finish)
            for prompt, new, finish in zip(prompts, ids, finishes, strict=True)
        ]

    def _sample(
        self,
        prompts: Sequence[Sequence[int]],
        room: Sequence[int],
        draws: _Draws,
        progress: ProgressHandle,
    ) -> tuple[list[list[int]], list[str]]:
        texts = Decoding(self.model, prompts, self.device, self.way)
        new: list[list[int]] = [[] for _ in prompts]
        finishes = [""] * len(prompts)
        for step in range(max(room)):
            # Nothing of an unfinished batch is on disk, so it can be left at any token.
            check_interrupted()
            logits = texts.logits()
            chosen = choose_tokens(
                token_logits(logits, self.vocabulary, "the teacher's"),
                self.sampling.temperature,
                self.sampling.top_p,
                draws.generator,
                part=draws.part,
            )
            for row, token in enumerate(chosen.tolist()):
                if finishes[row]:
                    continue
                if token in self.endings:
                    finishes[row] = "eos"
                    continue
                new[row].append(token)
                if len(new[row]) == room[row]:
                    finishes[row] = "length"
            if all(finishes):
                break
            texts.append(chosen, torch.tensor([not finish for finish in finishes], device=self.device))
            progress.update(token=f"{step + 1}/{max(room)}")
        return new, finishes

    def _text(self, prompt: Sequence[int], new: Sequence[int]) -> str:
        if self.table is not None:
            return spelled_after(self.table, prompt, new, names=self.parse).rstrip("\ufffd")
        # Decoded together: alone, SentencePiece would drop the space in front of the first word, and a character whose
        # bytes are spread over two tokens would be lost.
        whole = self._decode([*prompt, *new])
        beginning = self._decode(list(prompt))
        cut = next(
            (at for at, pair in enumerate(zip(whole, beginning, strict=False)) if pair[0] != pair[1]), len(beginning)
        )
        # What the last tokens leave of a character that was cut off.
        return whole[cut:].rstrip("\ufffd")

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(
            [int(index) for index in ids], skip_special_tokens=not self.parse, clean_up_tokenization_spaces=False
        )


def _ending_ids(model: nn.Module, tokenizer: Any, *, parse: bool) -> frozenset[int]:
    """Every token that ends a text: what tokenizer and model call EOS, and all other special tokens, unless texts may have
    them. Chat models end plain text with other tokens than their EOS, and a text that goes on after one is two texts."""
    config: Any = getattr(model, "generation_config", None) or model.config
    of_model = getattr(config, "eos_token_id", None)
    endings = [*(of_model if isinstance(of_model, (list, tuple)) else [of_model]), tokenizer.eos_token_id]
    others = [] if parse else tokenizer.all_special_ids
    return frozenset(int(index) for index in [*endings, *others] if index is not None)
