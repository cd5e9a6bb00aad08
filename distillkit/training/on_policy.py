"""On-policy distillation: in some steps the student learns from what it writes itself.

GKD (Agarwal et al. 2024, arXiv 2306.13649): texts y are drawn from the student's own distribution, y ~ q(· | x), the teacher
reads them, and the loss of such a step is

    L = (α + β) · 1/N · Σ τ²·D(p_τ ‖ q_τ)

over the N tokens that the student wrote: the soft term of any other step, with the weight of both terms, because there are no
true tokens. Neither the beginnings x nor what is in the texts of the data set behind them are targets, and no gradient goes
through the drawing. With a replay buffer (DistiLLM, arXiv 2402.03898) a share of these steps takes texts of earlier ones.

What a step is and draws follows from the seed and its number; the buffer and the counts are part of every checkpoint.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.data.batching import DistillationCollator, HostColumns
from distillkit.data.examples import load_examples, stored_rows
from distillkit.data.sampled_answers import sample_reader
from distillkit.data.samples import Sample, SampleReader
from distillkit.data.stored_rows import Rows
from distillkit.losses.chunked import StudentOutput
from distillkit.losses.mapped_mass import MappedMass
from distillkit.run.context import TrainingContext
from distillkit.teachers.protocol import TeacherSource
from distillkit.teachers.sources import LiveSource
from distillkit.training.objectives import Objective, Terms, Weights, objective_of
from distillkit.training.on_policy_schedule import EvenShare
from distillkit.training.replay_buffer import ReplayBuffer
from distillkit.training.student_writing import Draws, write_texts

STATE_FILE = "on_policy.json"


class SourceBesideTeacher:
    """The source of the teacher's targets on the data set, and the teacher itself, in memory, for what the student writes.

    Args:
        given: the source of the data set: of the same teacher, or of what is cached of it.
        live: reads what the student writes, and counts nothing else.
    """

    def __init__(self, given: TeacherSource, live: LiveSource) -> None:
        self.given, self.live = given, live
        self.pairs_rows = given.pairs_rows

    def signal(self, context: TrainingContext) -> Any:
        return self.given.signal(context)

    def totals(self) -> tuple[int, float]:
        return self.given.totals()

    def restore_totals(self, tokens: int, seconds: float) -> None:
        self.given.restore_totals(tokens, seconds)

    def gives_numbers(self, batch: Mapping[str, Any]) -> bool:
        host: HostColumns = batch["host"]
        return (self.live if host.sampled else self.given).gives_numbers(batch)

    def figures(self) -> dict[str, Any]:
        return self.given.figures()


class EitherObjective:
    """One objective for the batches of the data set, another for those that the student wrote."""

    def __init__(self, given: Objective, sampled: Objective) -> None:
        self.given, self.sampled = given, sampled

    @property
    def mass(self) -> MappedMass:
        """That of the data set; `OnPolicy` counts the other."""
        return self.given.mass

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return self.given.prepare(batch)

    def __call__(self, student: StudentOutput, batch: Mapping[str, Any], weights: Weights) -> Terms:
        host: HostColumns = batch["host"]
        return (self.sampled if host.sampled else self.given)(student, batch, weights)


@dataclass
class Counts:
    """What the on-policy steps came to so far.

    Attributes:
        steps: on-policy steps; replayed: those of them that took their texts from the buffer.
        texts: that the student wrote; ended: those that it ended itself; unread: those that taught nothing, because there
            was nothing to begin with or the teacher could not read them.
        tokens: that the student wrote.
        seconds: that writing took, making batches of it included.
        teacher_tokens, teacher_seconds: of the teacher's forward passes over them.
        mapped, rows: the sums of `MappedMass` of these batches.
    """

    steps: int = 0
    replayed: int = 0
    texts: int = 0
    ended: int = 0
    unread: int = 0
    tokens: int = 0
    seconds: float = 0.0
    teacher_tokens: int = 0
    teacher_seconds: float = 0.0
    mapped: float = 0.0
    rows: int = 0


class OnPolicy:
    """The on-policy steps of a training.

    Args:
        context: of the run.
        live: the teacher, in memory.
        reader: how samples begin and are read.
    """

    def __init__(self, context: TrainingContext, live: LiveSource, reader: SampleReader) -> None:
        config = context.config
        self.config, self.compute = config, context.compute
        self.live, self.reader = live, reader
        self.steps = EvenShare(config.on_policy_fraction)
        self.replays = EvenShare(config.replay_fraction)
        self.buffer = ReplayBuffer(config.replay_buffer)
        self.counts = Counts()
        self.objective = objective_of(live.signal(context), config)
        self.collator = DistillationCollator(white_box=True, aligned=context.pairs_rows, prepare=self.objective.prepare)
        self._may_write: Tensor = torch.from_numpy(reader.may_write)

    @classmethod
    def of(cls, context: TrainingContext, source: TeacherSource | None, rows: Rows) -> OnPolicy | None:
        """Those of a run; None where every batch is of the data set.

        Raises:
            PreconditionError: what this student writes cannot be scored.
        """
        if not isinstance(source, SourceBesideTeacher):
            return None
        texts = stored_rows(load_examples(context.run.data / "train"), ["id", "text"])
        reader = sample_reader(
            rows, texts, context.config.on_policy_max_new_tokens, context.encoders,
            context.pair.templates(context.encoders), same=bool(context.pair.same_tokenizer), paired=context.pairs_rows,
        )  # fmt: skip
        return cls(context, source.live, reader)

    def beside(self, given: Objective) -> Objective:
        """The objective of all batches.

        Args:
            given: that of the data set.
        """
        return EitherObjective(given, self.objective)

    # --- steps ---

    def has(self, step: int) -> bool:
        """Whether a step, counted from 0, is on-policy."""
        return self.steps.has(step)

    def batches(self, step: int, given: Sequence[Mapping[str, Any]], student: nn.Module) -> list[dict[str, Any]]:
        """The micro-batches of an on-policy step.

        Args:
            given: those of the data set, from whose texts the student begins.
            student: as it is before the step.

        Returns:
            As many batches with as many texts, as the collator of a training gives them, on the processor.

        Raises:
            DistillkitError: the student's logits are no numbers.
        """
        began = time.monotonic()
        places = [batch["host"].cache_index for batch in given]
        count, number = sum(map(len, places)), self.counts.steps
        self.counts.steps += 1
        replays = self.replays.has(number) and 0 < count <= len(self.buffer)
        if replays:
            drawn = self.buffer.draw(count, _seed(self.config.seed, step, "replay"))
            self.counts.replayed += 1
        else:
            drawn = self._written(step, places, student)
        rows = [self.reader.row(sample) for sample in drawn]
        taught = [bool(row["target_spans"]) for row in rows]
        self.counts.unread += count - sum(taught)
        if not replays:
            self.buffer.add(itertools.compress(drawn, taught))
        made = []
        for place in places:
            batch = self.collator(rows[: len(place)])
            batch["host"] = replace(batch["host"], sampled=True)
            made.append(batch)
            rows = rows[len(place) :]
        self.counts.seconds += time.monotonic() - began
        return made

    def _written(self, step: int, places: Sequence[Sequence[int]], student: nn.Module) -> list[Sample]:
        """What the student writes for all texts of a step, a micro-batch at a time.

        Args:
            places: of the texts of each micro-batch.
        """
        texts, found, first = sum(map(len, places)), [], 0
        seed = _seed(self.config.seed, step, "draws")
        for part in places:
            prompts = [self.reader.prompt(text, random.Random(f"{self.config.seed}/{step}/{text}")) for text in part]
            found += self._part(part, prompts, student, Draws(seed, first, texts))
            first += len(part)
        return found

    def _part(
        self, part: Sequence[int], prompts: Sequence[tuple[int, ...]], student: nn.Module, draws: Draws
    ) -> list[Sample]:
        rooms = [self.reader.room(prompt) if prompt else 0 for prompt in prompts]
        # A text without a beginning is not written, but has its numbers, as the other texts have theirs.
        begun = [prompt or next((one for one in prompts if one), ()) for prompt in prompts]
        if not any(rooms):
            return [Sample(text, (), (), False) for text in part]
        written = write_texts(
            student, begun, [max(1, room) for room in rooms], self._may_write, self.reader.endings, draws,
            temperature=self.config.on_policy_temperature, device=self.compute.device, autocast_dtype=self.compute.autocast,
        )  # fmt: skip
        samples = []
        for text, prompt, room, (ids, ended) in zip(part, prompts, rooms, written, strict=True):
            if not room:
                samples.append(Sample(text, (), (), False))
                continue
            samples.append(Sample(text, prompt, ids, ended))
            self.counts.texts += 1
            self.counts.ended += ended
            self.counts.tokens += len(ids) + ended
        return samples

    # --- figures and checkpoints ---

    def figures(self, steps: int) -> dict[str, Any]:
        """For metrics.json.

        Args:
            steps: of the training so far.
        """
        counts = self._settled()
        found: dict[str, Any] = {
            "steps": counts.steps,
            "share": counts.steps / max(1, steps),
            "replayed_steps": counts.replayed,
            "texts": counts.texts,
            "ended": counts.ended,
            "unread": counts.unread,
            "sampled_tokens": counts.tokens,
            "seconds": round(counts.seconds, 3),
            "sampled_tokens_per_second": round(counts.tokens / max(counts.seconds, 1e-9), 2),
            "teacher_tokens": counts.teacher_tokens,
            "teacher_seconds": round(counts.teacher_seconds, 3),
        }
        if counts.rows:
            found["mass_mapped"] = counts.mapped / counts.rows
        return found

    def save(self, folder: Path) -> None:
        """Write what a resumed training must not forget into the folder of a checkpoint."""
        state = {"counts": dataclasses.asdict(self._settled()), "buffer": self.buffer.state()}
        (folder / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, checkpoint: Path) -> None:
        """Become what was saved in a committed checkpoint."""
        state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        self.counts = Counts(**state["counts"])
        self.buffer.restore(state["buffer"])
        self.live.restore_totals(self.counts.teacher_tokens, self.counts.teacher_seconds)
        self.objective.mass.restore(self.counts.mapped, self.counts.rows)

    def _settled(self) -> Counts:
        tokens, seconds = self.live.totals()
        mass = self.objective.mass
        self.counts = replace(
            self.counts, teacher_tokens=tokens, teacher_seconds=seconds, mapped=mass.mapped, rows=mass.rows
        )
        return self.counts


def _seed(seed: int, step: int, what: str) -> int:
    """Of the random numbers of a step."""
    return random.Random(f"on-policy/{seed}/{step}/{what}").getrandbits(63)
