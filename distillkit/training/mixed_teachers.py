"""Several teachers of a white-box training: each had as it would be alone, all of them learnt from as one mixture.

One after the other completes its cache and is forgotten; only teachers without a cache are in memory together. What the student
learns is `losses.mixture`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import load_examples
from distillkit.data.stored_rows import Rows
from distillkit.data.training_rows import white_box_rows
from distillkit.errors import UsageError
from distillkit.losses.chunked import StudentOutput
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.mixture import MixedTargets
from distillkit.run.context import TrainingContext
from distillkit.run.further_teachers import FurtherTeacher, examples_of, open_further
from distillkit.settings.teacher_values import teacher_weights
from distillkit.teachers.choices import CacheChoice
from distillkit.teachers.loader import TeacherLoader
from distillkit.teachers.protocol import TargetMaker, TeacherSource
from distillkit.teachers.sources import open_source, remember_choice
from distillkit.training.decisions import TeacherDecision
from distillkit.training.objectives import Objective, SoftSettings, Terms, Weights, soft_settings, weighted_loss


@dataclass(frozen=True)
class OneOfSeveral:
    """A teacher beside the student.

    Attributes:
        context: its own: pair, encoders.
        rows: the training texts as it reads them.
        loader: how it is had.
    """

    context: TrainingContext
    rows: Rows
    loader: TeacherLoader

    @property
    def name(self) -> str:
        return self.context.pair.teacher.reference.text


def cache_note(run_teacher: Path, number: int) -> Path:
    """Where `auto` notes which cache a teacher has.

    Args:
        run_teacher: the folder of the run's teacher.
        number: from 1.
    """
    return run_teacher / ("cache.json" if number == 1 else f"cache-{number}.json")


def further_loaders(context: TrainingContext, fingerprints: Sequence[str] | None = None) -> list[OneOfSeveral]:
    """The teachers besides the first, nothing of them loaded; [] where there are none.

    Args:
        fingerprints: of them; default: computed from their files, which reads them all.

    Raises:
        PreconditionError: one is not the model that the data were prepared for.
    """
    teachers = open_further(context.pair, context.config, context.run, context.console)
    known = list(fingerprints) if fingerprints is not None else [None] * len(teachers)
    return [beside(context, teacher, fingerprint) for teacher, fingerprint in zip(teachers, known, strict=True)]


def further_loader(context: TrainingContext, number: int, fingerprint: str) -> OneOfSeveral:
    """One of them.

    Args:
        number: from 2.
        fingerprint: of it.

    Raises:
        PreconditionError: as `further_loaders`.
    """
    teachers = open_further(context.pair, context.config, context.run, context.console)
    return beside(context, teachers[number - 2], fingerprint)


def beside(context: TrainingContext, teacher: FurtherTeacher, fingerprint: str | None) -> OneOfSeveral:
    """A further teacher in the surroundings of the first one's training.

    Args:
        fingerprint: of it; default: computed from its files.
    """
    own = replace(context, pair=teacher.pair, encoders=teacher.encoders)
    rows = white_box_rows(
        load_examples(examples_of(context.run.data, teacher.number, "train")),
        first_target=0 if teacher.encoders.student.start_id is None else 1,
        identical=teacher.same_tokenizer and own.pairs_rows, start_shift=teacher.encoders.start_shift,
    )  # fmt: skip
    loader = TeacherLoader(own, rows, fingerprint)
    loader.number = teacher.number
    return OneOfSeveral(own, rows, loader)


def choices_of(others: Sequence[tuple[OneOfSeveral, TeacherDecision]]) -> list[dict[str, str]]:
    """What the other processes of a training have to know of further teachers (`training.decisions.TeacherChoice.others`)."""
    return [
        {
            "cache": decision.cache.mode,
            "why": decision.cache.why,
            "fingerprint": other.context.pair.teacher.fingerprint(),
        }
        for other, decision in others
    ]


def open_mixture(
    context: TrainingContext, teachers: Sequence[OneOfSeveral], choices: Sequence[CacheChoice]
) -> MixedSource:
    """All teachers as they were chosen to be had; caches are completed first, one teacher after the other.

    Args:
        context: of the first teacher.
        teachers: the first one first.
        choices: of each.

    Raises:
        Interrupted: a signal arrived during a teacher pass; what is done stays.
        DistillkitError: the disk is full, or a teacher gives no numbers.
    """
    config, console = context.config, context.console
    weights = teacher_weights(config)
    console.info(f"teachers: {weighed(teachers, weights)}; the student learns the mean of their probabilities")
    if config.teacher_cache == "auto":
        for number, choice in enumerate(choices, 1):
            remember_choice(cache_note(context.run.teacher, number), choice, console, f"cache of teacher {number}")
    opened: dict[int, TeacherSource] = {}
    # A teacher that stays in memory is loaded when no other has a pass to do.
    for index in sorted(range(len(teachers)), key=lambda index: choices[index].mode == "off"):
        console.info(f"teacher {index + 1} of {len(teachers)}: {teachers[index].name}")
        opened[index] = open_source(teachers[index].context, teachers[index].loader, choices[index])
    members = [
        _Member(teacher.name, teacher.context, teacher.rows, opened[index], weights[index])
        for index, teacher in enumerate(teachers)
    ]
    return MixedSource(members)


def weighed(teachers: Sequence[OneOfSeveral], weights: Sequence[float]) -> str:
    """For people: `gpt2 (0.75), gpt2-medium (0.25)`."""
    return ", ".join(f"{teacher.name} ({weight:.4g})" for teacher, weight in zip(teachers, weights, strict=True))


@dataclass(frozen=True)
class _Member:
    name: str
    context: TrainingContext
    rows: Rows
    source: TeacherSource
    weight: float

    @property
    def paired(self) -> bool:
        return self.source.pairs_rows and self.context.pairs_rows


class MixedSource:
    """The `teachers.protocol.TeacherSource` of several teachers; batches are those of the first one."""

    def __init__(self, members: Sequence[_Member]) -> None:
        self.members = members

    @property
    def pairs_rows(self) -> bool:
        return self.members[0].source.pairs_rows

    def signal(self, context: TrainingContext) -> Objective:
        """Raises UsageError: an alignment gives no distributions."""
        taught: list[_Taught] = []
        for number, member in enumerate(self.members):
            own = replace(member.context, config=context.config)
            maker = member.source.signal(own)
            if not isinstance(maker, TargetMaker):
                raise UsageError(
                    f"--extra-teachers and alignment {context.config.alignment} exclude each other: it gives no distributions that "
                    "could be mixed",
                    hint="use alignment auto, bpm or strict, or one teacher",
                )
            collator = DistillationCollator(white_box=True, aligned=member.paired, prepare=maker.prepare)
            taught.append(_Taught(maker, member.weight, None if number == 0 else (collator, member.rows)))
        return MixedObjective(taught, soft_settings(context.config))

    def totals(self) -> tuple[int, float]:
        totals = [member.source.totals() for member in self.members]
        return sum(tokens for tokens, _ in totals), sum(seconds for _, seconds in totals)

    def restore_totals(self, tokens: int, seconds: float) -> None:
        """The first keeps what all have read: only the sum is asked for."""
        for number, member in enumerate(self.members):
            member.source.restore_totals(*((tokens, seconds) if number == 0 else (0, 0.0)))

    def gives_numbers(self, batch: Mapping[str, Any]) -> bool:
        batches = [batch, *batch["prepared"]["teachers"][1:]]
        return all(member.source.gives_numbers(own) for member, own in zip(self.members, batches, strict=True))

    def figures(self) -> dict[str, Any]:
        """Sums, and under `teachers` what each has read."""
        each = [member.source.figures() for member in self.members]
        sums = {name: sum(of_one[name] for of_one in each) for name in ("tokens", "cached_tokens", "cache_bytes")}
        seconds = round(sum(of_one["seconds"] for of_one in each), 3)
        named = [
            {"name": member.name, "weight": member.weight, **of_one}
            for member, of_one in zip(self.members, each, strict=True)
        ]
        return {
            **sums, "seconds": seconds, "tokens_per_second": round(sums["tokens"] / max(seconds, 1e-9), 2), "teachers": named,
        }  # fmt: skip


@dataclass(frozen=True)
class _Taught:
    """A teacher as the objective has it.

    Attributes:
        reading: what makes its own batch, and the texts as it reads them; None of the first, whose batch is the training's.
    """

    maker: TargetMaker
    weight: float
    reading: tuple[DistillationCollator, Rows] | None


class MixedObjective:
    """White box with several teachers: the soft loss to their mixture at the rows where one of them at least has a target,
    cross-entropy at every target.

    Attributes:
        mass: how much of the teachers' probability the student has tokens for, over the rows of all of them.
    """

    def __init__(self, teachers: Sequence[_Taught], soft: SoftSettings) -> None:
        self.teachers = teachers
        self.soft = soft
        self.mass = MappedMass()
        self._count()

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What follows from the batch for the first teacher, and a whole batch of the same texts for each other one."""
        prepared: list[dict[str, Any]] = []
        for teacher in self.teachers:
            if teacher.reading is None:
                prepared.append(teacher.maker.prepare(batch))
                continue
            collator, rows = teacher.reading
            prepared.append(collator([rows[index] for index in batch["host"].cache_index]))
        return {"teachers": prepared}

    def __call__(self, student: StudentOutput, batch: Mapping[str, Any], weights: Weights) -> Terms:
        first, *others = batch["prepared"]["teachers"]
        batches = [{**batch, "prepared": first}, *others]
        parts = [
            (teacher.maker.soft_targets(own), teacher.weight)
            for teacher, own in zip(self.teachers, batches, strict=True)
        ]
        soft = self.soft.at(weights.training_fraction)
        targets = MixedTargets(parts, self.soft.temperature_at(weights.training_fraction))
        computed = weighted_loss(student, batch, weights.beta, targets, soft, weights)
        self._count()
        return Terms(computed.loss, computed.soft_sum, computed.cross_entropy_N.sum())

    def _count(self) -> None:
        for teacher in self.teachers:
            self.mass.take(teacher.maker.mass)
