"""How long each phase of a run will take, from what layers of its models take on this machine now (`microbenchmarks`).

What does not depend on the models (reading tokenizers, making datasets, plotting) is counted in seconds of a quiet
machine and stretched by how much slower this one is at present.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from distillkit.device.precision import Compute
from distillkit.dry_run import microbenchmarks
from distillkit.dry_run.inputs import Amounts
from distillkit.dry_run.on_policy import PlannedSamples, reading_seconds, writing_seconds
from distillkit.evaluation.stopping import ANSWERING_SECONDS, LONGEST_ANSWER
from distillkit.models.layer_scores import CANDIDATES
from distillkit.models.references import parse_student_reference
from distillkit.models.shape import ModelShape
from distillkit.run.context import texts_per_example
from distillkit.run.student_size import trained_numbers
from distillkit.settings.parameters import Parameters
from distillkit.teachers.cut_student import FIT_TOKENS, INFLUENCE_TOKENS, TRIAL_TOKENS
from distillkit.training.arguments import times_read, total_steps
from distillkit.training.control import control_config
from distillkit.training.decisions import tunes_teacher

# On the machine where the fixed costs below were taken, quiet.
_QUIET_HASHING = 1.4e9
_CHECK, _TOKENIZERS, _LOADING, _STEP, _PLOTTING = 0.15, 1.0, 0.5, 0.012, 0.9
_GENERATING = 2.0  # transformers' own machinery around it.
ENCODING_RATE = 30_000  # Tokens per second, datasets and all.
_COMPILING = 25.0
_COMPILED = 0.45  # Of the eager element-wise time.
_READING = 10e9  # Bytes per second of memory, where one token at a time reads all weights.
_STREAMING_READ = 1.5e9  # Bytes per second from a disk.
# What configurations call the width of the feed-forward layers.
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_DEMO_TOKENS, _SPEED_TOKENS, _SPEED_MOST = 3 * 48, 3 * 33, 15.0


@dataclass(frozen=True)
class Work:
    """What a run has to do, as it has been decided.

    Attributes:
        amounts: the texts.
        steps: optimizer steps.
        cache: the teacher's cache (`TeacherDecision.cache.mode`).
        streams: whether the teacher runs block by block.
        teacher_share: how much of the teacher pass is still to be done, 0 to 1.
        compiled: whether the loss is compiled.
        tunes: whether the teacher is still to be tuned.
        devices: GPUs that the teacher is spread over.
    """

    amounts: Amounts
    steps: int
    cache: str = "off"
    streams: bool = False
    teacher_share: float = 1.0
    compiled: bool = False
    tunes: bool = False
    devices: int = 1


@dataclass(frozen=True)
class TaughtBy:
    """A further teacher, and its part of the work.

    Attributes:
        shape: its size.
        work: as if it were the only teacher.
    """

    shape: ModelShape
    work: Work


def phase_seconds(
    config: Parameters, compute: Compute, teacher: ModelShape, student: ModelShape, work: Work, stages: list[str]
) -> dict[str, float]:
    """Seconds for each phase of the stages: "check-env", "prepare-data", "teacher pass", "student writing", "training",
    "validate", …"""
    hashing = microbenchmarks.hashing_rate()
    pace = _QUIET_HASHING / hashing
    amounts = work.amounts
    both = teacher.parameters + student.parameters
    loading = {
        "teacher": pace * _LOADING + teacher.parameters * compute.teacher.itemsize / hashing,
        "student": pace * _LOADING + 4 * student.parameters / hashing,
    }
    texts = amounts.student_tokens + 2 * amounts.held_out_tokens
    phases: dict[str, float] = {}
    if "check-env" in stages:
        phases["check-env"] = pace * _CHECK
    if "prepare-data" in stages:
        phases["prepare-data"] = pace * (2 * _TOKENIZERS + texts / ENCODING_RATE) + 3 * both / hashing
        if parse_student_reference(config).kind == "pruned-teacher" and student.layers < teacher.layers:
            phases["prepare-data"] += _cutting(config, compute, teacher, student, amounts, hashing) + sum(
                loading.values()
            )
    if config.alpha > 0 and ("distill" in stages or "tune" in stages):
        phases["teacher pass"] = _teacher_pass(config, compute, teacher, work, hashing)
    if "distill" in stages:
        if work.tunes:
            phases["teacher tuning"] = _tuning(config, compute, teacher, work, pace, hashing) + loading["teacher"]
        samples = PlannedSamples.of(config, work.steps)
        if samples.steps:
            phases["student writing"] = writing_seconds(config, compute, student, samples)
        phases["training"] = _training(config, compute, teacher, student, work, pace, hashing) + loading["student"]
        if config.alpha > 0:
            phases["training"] += loading["teacher"]
    if "control" in stages:
        untaught = replace(work, steps=total_steps(config, amounts.examples), cache="off")
        control = _training(control_config(config), compute, teacher, student, untaught, pace, hashing)
        phases["control"] = control + loading["student"] + pace * _TOKENIZERS
    others = pace * _TOKENIZERS + loading["teacher"] + 2 * loading["student"]
    if "validate" in stages:
        phases["validate"] = _validation(compute, teacher, student, amounts) + others
        if amounts.questions:
            phases["validate"] += _answering(config, compute, teacher) + 2 * _answering(config, compute, student)
        if tunes_teacher(config):
            phases["validate"] += _scoring(compute, teacher, amounts) + loading["teacher"]
    if "demo" in stages:
        writing = _one_token(teacher, compute) + 2 * _one_token(student, compute)
        phases["demo"] = _DEMO_TOKENS * writing + others + pace * _GENERATING
    if "plot" in stages:
        phases["plot"] = pace * _PLOTTING
    return phases


def add_teacher(phases: dict[str, float], config: Parameters, compute: Compute, teacher: TaughtBy) -> None:
    """Add what a further teacher takes to the phases that it has a part in."""
    shape, work = teacher.shape, teacher.work
    hashing = microbenchmarks.hashing_rate()
    loading = _QUIET_HASHING / hashing * _LOADING + shape.parameters * compute.teacher.itemsize / hashing
    if "prepare-data" in phases:
        texts = work.amounts.student_tokens + work.amounts.held_out_tokens
        phases["prepare-data"] += _QUIET_HASHING / hashing * (_TOKENIZERS + texts / ENCODING_RATE)
    if "teacher pass" in phases:
        phases["teacher pass"] += _teacher_pass(config, compute, shape, work, hashing) + loading
    if "training" in phases and work.cache != "sparse":
        tokens = work.amounts.student_tokens * times_read(config, work.amounts.examples)
        head = microbenchmarks.head_seconds(shape.vocabulary, shape.width, compute.teacher, compute.device)
        phases["training"] += tokens * head
    if "validate" in phases:
        phases["validate"] += _scoring(compute, shape, work.amounts) + loading


def _cutting(
    config: Parameters, compute: Compute, teacher: ModelShape, student: ModelShape, amounts: Amounts, hashing: float
) -> float:
    """Choosing the layers of a student that is cut from the teacher, and fitting them (`teachers.cut_student`)."""
    reference = parse_student_reference(config)
    named = not (isinstance(reference.layers, int) or reference.automatic)
    way = "even" if named else config.layer_choice
    each = microbenchmarks.forward_per_token(teacher, compute.teacher, compute, amounts.length)
    products, element_wise = microbenchmarks.loss_seconds(teacher.vocabulary, teacher.width, compute)
    head = products / 3 + element_wise / 4
    # A try runs the layers behind the one that is left out: about half of those that are still there.
    tries = {"perplexity": teacher.layers, "greedy": CANDIDATES * (teacher.layers - student.layers)}.get(way, 0)
    shares = {"perplexity": 0.5, "greedy": 0.25 * (1 + student.layers / teacher.layers)}
    seconds = tries * TRIAL_TOKENS * (each * shares.get(way, 0.0) + head)
    seconds += 0.0 if way == "even" else each * INFLUENCE_TOKENS
    if config.student_start == "fitted":
        tokens = min(FIT_TOKENS, amounts.student_tokens)
        own = microbenchmarks.forward_per_token(student, compute.autocast or torch.float32, compute, amounts.length)
        inner = next(
            (size for name in _INNER if isinstance(size := teacher.config.get(name), int)), 4 * teacher.inner_width
        )
        row = microbenchmarks.head_seconds(inner, inner, torch.float32, compute.device)
        # Each layer runs twice; the sums, and a triangle of them in fp64.
        seconds += tokens * (each + 2 * own) + student.layers * row * (tokens + inner / 3)
        seconds += 4 * student.parameters * 2 / hashing
    return seconds


def _teacher_pass(config: Parameters, compute: Compute, teacher: ModelShape, work: Work, hashing: float) -> float:
    """The teacher's part: it reads all texts, once or in every epoch, or writes as many."""
    amounts = work.amounts
    if config.box_type == "black":
        return math.ceil(amounts.teacher_tokens * config.answers / config.batch_size) * _one_token(teacher, compute)
    cached = work.cache != "off"
    each = microbenchmarks.forward_per_token(
        teacher, compute.teacher, compute, amounts.length, None if cached else config.batch_size,
        int8=config.teacher_precision == "int8",
    )  # fmt: skip
    samples = PlannedSamples.of(config, work.steps)
    own = reading_seconds(config, compute, teacher, samples) if samples.steps else 0.0
    if not cached:
        return own + each * amounts.teacher_tokens * times_read(config, amounts.examples) * (1 - samples.share)
    seconds = each * amounts.teacher_tokens
    if work.streams:
        moved = 4 * amounts.teacher_tokens * teacher.width * compute.teacher.itemsize * teacher.layers
        seconds += teacher.parameters * compute.teacher.itemsize / _STREAMING_READ + moved / hashing
    return own + seconds * work.teacher_share


def _tuning(
    config: Parameters, compute: Compute, teacher: ModelShape, work: Work, pace: float, hashing: float
) -> float:
    """The teacher is trained as a student is that has no teacher, for so many steps and not epochs."""
    steps, amounts = config.tune_teacher, work.amounts
    each = amounts.teacher_tokens / max(1, amounts.examples) * config.batch_size * config.gradient_accumulation
    own = replace(config, alpha=0.0, beta=1.0, epochs=1, max_steps=None, save_best_model=True, adapter="none")
    tuned = replace(work, amounts=replace(amounts, student_tokens=round(each * steps)), steps=steps, compiled=False)
    return _training(own, compute, teacher, teacher, tuned, pace, hashing)


def _training(
    config: Parameters,
    compute: Compute,
    teacher: ModelShape,
    student: ModelShape,
    work: Work,
    pace: float,
    hashing: float,
) -> float:
    amounts = work.amounts
    texts = texts_per_example(config)
    samples = PlannedSamples.of(config, work.steps)
    tokens = amounts.student_tokens * texts * times_read(config, amounts.examples * texts) * (1 - samples.share)
    # Of three passes, forward, for the inputs and for the weights, an adapter leaves out the last, of layers and head.
    passes, trained = 3 if config.adapter == "none" else 2, trained_numbers(config, student)
    once = microbenchmarks.training_per_token(student, compute, amounts.length, config.batch_size) / 3
    # Layers of which only the input is kept go forward twice.
    layers = once * (passes + 1 if config.gradient_checkpointing else passes)
    products, element_wise = microbenchmarks.loss_seconds(student.vocabulary, student.width, compute)
    products *= passes / 3
    head = 0.0
    if config.box_type == "white" and config.alpha > 0 and (work.cache != "sparse" or samples.steps):
        head = microbenchmarks.head_seconds(teacher.vocabulary, teacher.width, compute.teacher, compute.device)
    row = products + element_wise * (_COMPILED if work.compiled else 1)
    loss = tokens * (row + (head if work.cache != "sparse" else 0.0)) + samples.targets * (row + head)
    steps = work.steps * (microbenchmarks.optimizer_seconds(trained, compute.device) + pace * _STEP)
    # The whole validation part is scored at the beginning and whenever a checkpoint is written.
    checkpoints = math.ceil(work.steps / config.checkpoint_interval)
    scored = amounts.held_out_tokens * (once + products / passes + element_wise / 3)
    written = (
        12 * trained + (4 * student.parameters if config.save_best_model else 0)
    ) * 2 / hashing + pace * _TOKENIZERS
    return (
        (tokens + samples.read) * layers + loss + steps + (1 + checkpoints) * scored + checkpoints * written
        + pace * (2 * _TOKENIZERS + (_COMPILING if work.compiled else 0.0)) + 8 * student.parameters / hashing
    )  # fmt: skip


def _validation(compute: Compute, teacher: ModelShape, student: ModelShape, amounts: Amounts) -> float:
    """Each model scores the test part, the students beside the teacher; then each writes a little."""
    tokens = amounts.held_out_tokens
    teacher_each = microbenchmarks.forward_per_token(teacher, compute.teacher, compute, amounts.length)
    student_each = microbenchmarks.forward_per_token(
        student, compute.autocast or compute.teacher, compute, amounts.length
    )
    seconds = 0.0
    for model, each, count in ((teacher, teacher_each, 1), (student, student_each, 2)):
        products, element_wise = microbenchmarks.loss_seconds(model.vocabulary, model.width, compute)
        # Scoring needs a sum over the vocabulary, the comparison with the teacher two distributions.
        seconds += count * tokens * (each + products / 3 + 2 * element_wise / 4)
        seconds += count * min(_SPEED_MOST, _SPEED_TOKENS * _one_token(model, compute))
    return seconds


def _answering(config: Parameters, compute: Compute, model: ModelShape) -> float:
    """A model answers questions, none of which ends before the limit; so many at once take about twice the time of one."""
    longest = min(LONGEST_ANSWER, config.max_length)
    return min(ANSWERING_SECONDS, 2 * 2 * longest * _one_token(model, compute))


def _scoring(compute: Compute, teacher: ModelShape, amounts: Amounts) -> float:
    """A teacher scores the test part."""
    each = microbenchmarks.forward_per_token(teacher, compute.teacher, compute, amounts.length)
    products, element_wise = microbenchmarks.loss_seconds(teacher.vocabulary, teacher.width, compute)
    return amounts.held_out_tokens * (each + products / 3 + element_wise / 4)


def _one_token(model: ModelShape, compute: Compute) -> float:
    head = model.vocabulary * model.width * compute.generation.itemsize / _READING
    return microbenchmarks.single_token(model, compute) + head
