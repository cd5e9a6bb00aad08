"""The models of a run that write the same things side by side; a teacher that is not here, or does not fit, is left out."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from distillkit.chatting.sampling import Sampling
from distillkit.chatting.writing import Writer, Written
from distillkit.console import Console
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.text_encoder import TextEncoder
from distillkit.device.memory import explained_memory_errors
from distillkit.device.precision import Compute, choose_compute
from distillkit.errors import UsageError
from distillkit.interrupts import check_interrupted, pending
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import ModelPair, open_pair
from distillkit.settings.parameters import Parameters
from distillkit.teachers.choices import USABLE_MEMORY
from distillkit.teachers.spread import teacher_memory

_LONGEST_PROMPT = 20_000


@dataclass(frozen=True)
class SideBySide:
    """The models that take part.

    Attributes:
        names: "teacher", "before", "after": those that take part, in this order.
        left_out: who does not take part -> `why`: "asked", "served", "imported", "streamed" or "memory", the last with
            `needed` and `free` in bytes.
        answers: they are asked in their chat templates, as the run was trained on conversations.
    """

    run: RunDirectory
    pair: ModelPair
    compute: Compute
    console: Console
    names: tuple[str, ...]
    left_out: Mapping[str, Mapping[str, Any]]
    answers: bool
    _readers: Mapping[str, tuple[TextEncoder, ConversationReader | None]]

    @staticmethod
    def of_run(config: Parameters, run: RunDirectory, console: Console, *, teacher: bool | None = None) -> SideBySide:
        """The models of a run whose training is complete.

        Args:
            teacher: whether it takes part; by default where its weights are here and fit into memory.

        Raises:
            PreconditionError: a model has changed or is damaged.
            UsageError: the teacher is asked for and its weights are not here.
        """
        compute = choose_compute(config)
        pair = open_pair(config, run, console)
        encoders = pair.text_encoders(config)
        templates = pair.templates(encoders)
        student, theirs = (None, None) if templates is None else templates.readers(encoders)
        why = _why_without_teacher(config, pair, compute, teacher)
        readers = {
            "teacher": (encoders.teacher, theirs),
            **dict.fromkeys(("before", "after"), (encoders.student, student)),
        }
        names = tuple(name for name in readers if why is None or name != "teacher")
        left_out = {} if why is None else {"teacher": why}
        return SideBySide(run, pair, compute, console, names, left_out, templates is not None, readers)

    def load(self, name: str) -> Writer:
        """Load one of the models.

        Raises:
            DistillkitError: it does not fit into memory, or its files are damaged.
        """
        encoder, reader = self._readers[name]
        with explained_memory_errors():
            model = self._model(name).to(self.compute.device).eval()
        return Writer(model, encoder, self.compute, reader)

    def _model(self, name: str) -> nn.Module:
        if name == "teacher":
            return self.pair.load_teacher(self.compute.generation, self.console)
        if name == "before":
            return self.pair.load_student(self.console)
        return self.pair.load_trained_student(Path(self.run.best_student), self.console)

    def write(self, prompts: Sequence[str], sampling: Sampling) -> dict[str, Any]:
        """Let every model write after every prompt, one model in memory at a time.

        Returns:
            The content of demo.json.

        Raises:
            UsageError: a prompt is no prompt, or has what a model cannot read.
            Interrupted: a signal arrived.
        """
        check_prompts(prompts)
        written: dict[str, list[Written]] = {}
        with self.console.progress("writing", total=len(self.names) * len(prompts), unit="texts") as progress:
            for name in self.names:
                writer = self.load(name)
                written[name] = []
                for prompt in prompts:
                    written[name].append(writer.write(prompt, sampling, lambda: pending() is not None))
                    check_interrupted()
                    progress.advance()
                del writer
                gc.collect()
        return self.record(prompts, written, sampling)

    def record(
        self, prompts: Sequence[str], written: Mapping[str, Sequence[Written]], sampling: Sampling
    ) -> dict[str, Any]:
        """The content of demo.json: of each prompt what each model wrote."""
        return {
            **sampling.record(),
            "answers": self.answers,
            "left_out": {name: dict(why) for name, why in self.left_out.items()},
            "models": {name: _speed(texts) for name, texts in written.items()},
            "texts": [
                {"prompt": prompt, **{name: texts[place].text for name, texts in written.items()}}
                for place, prompt in enumerate(prompts)
            ],
            "figures": [
                {name: texts[place].record() for name, texts in written.items()} for place in range(len(prompts))
            ],
        }


def check_prompts(prompts: Sequence[str]) -> None:
    """Refuse what is no prompt.

    Raises:
        UsageError: one is empty or very long.
    """
    if any(len(prompt) > _LONGEST_PROMPT or not prompt.strip() for prompt in prompts):
        raise UsageError("--prompt: a prompt is empty or longer than 20 000 characters", hint="give a sentence or two")


def _speed(texts: Sequence[Written]) -> dict[str, Any]:
    """Tokens, seconds and tokens per second of all texts of one model."""
    tokens, seconds = sum(text.tokens for text in texts), sum(text.seconds for text in texts)
    return {"tokens": tokens, "seconds": round(seconds, 3), "tokens_per_second": round(tokens / max(seconds, 1e-9), 1)}


def _why_without_teacher(
    config: Parameters, pair: ModelPair, compute: Compute, asked: bool | None
) -> dict[str, Any] | None:
    """Why the teacher does not take part, None if it does."""
    if pair.teacher.is_served:
        if asked:
            raise UsageError("--teacher: the teacher's weights are not here", hint="leave it out: --no-teacher")
        return {"why": "imported" if pair.teacher.is_imported else "served"}
    if asked is not None:
        return None if asked else {"why": "asked"}
    if config.teacher_streaming == "on":
        return {"why": "streamed"}
    memory = teacher_memory(pair, compute)
    # As the plan reckons, in the format in which it writes.
    needed = memory.weight_bytes * compute.generation.itemsize // compute.teacher.itemsize
    if needed <= USABLE_MEMORY * memory.free_bytes:
        return None
    return {"why": "memory", "needed": needed, "free": memory.free_bytes}
