"""How long each phase of a run will take, from what layers of its models take on this machine now (`microbenchmarks`).

What does not depend on the models (reading tokenizers, making datasets, plotting) is counted in seconds of a quiet
machine and stretched by how much slower this one is at present.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from distillkit.device.precision import Compute
from distillkit.dry_run import microbenchmarks
from distillkit.dry_run.inputs import Amounts
from distillkit.models.shape import ModelShape
from distillkit.run.context import learns_both_texts
from distillkit.settings.parameters import Parameters

# On the machine where the fixed costs below were taken, quiet.
_QUIET_HASHING = 1.4e9
_CHECK, _TOKENIZERS, _LOADING, _STEP, _PLOTTING = 0.15, 1.0, 0.5, 0.012, 0.9
_GENERATING = 2.0  # transformers' own machinery around it.
_ENCODING = 30_000  # Tokens per second, datasets and all.
_COMPILING = 25.0
_COMPILED = 0.12  # Of the eager element-wise time.
_READING = 10e9  # Bytes per second of memory, where one token at a time reads all weights.
_STREAMING_READ = 1.5e9  # Bytes per second from a disk.
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
    """

    amounts: Amounts
    steps: int
    cache: str = "off"
    streams: bool = False
    teacher_share: float = 1.0
    compiled: bool = False


def phase_seconds(
    config: Parameters, compute: Compute, teacher: ModelShape, student: ModelShape, work: Work, stages: list[str]
) -> dict[str, float]:
    """Seconds for each phase of the stages: "check-env", "prepare-data", "teacher pass", "training", "validate", …"""
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
        phases["prepare-data"] = pace * (2 * _TOKENIZERS + texts / _ENCODING) + 3 * both / hashing
    if "distill" in stages:
        if config.alpha > 0:
            phases["teacher pass"] = _teacher_pass(config, compute, teacher, work, hashing)
        phases["training"] = _training(config, compute, teacher, student, work, pace, hashing) + loading["student"]
        if config.alpha > 0:
            phases["training"] += loading["teacher"]
    others = pace * _TOKENIZERS + loading["teacher"] + 2 * loading["student"]
    if "validate" in stages:
        phases["validate"] = _validation(compute, teacher, student, amounts) + others
    if "demo" in stages:
        writing = _one_token(teacher, compute) + 2 * _one_token(student, compute)
        phases["demo"] = _DEMO_TOKENS * writing + others + pace * _GENERATING
    if "plot" in stages:
        phases["plot"] = pace * _PLOTTING
    return phases


def _teacher_pass(config: Parameters, compute: Compute, teacher: ModelShape, work: Work, hashing: float) -> float:
    """The teacher's part: it reads all texts, once or in every epoch, or writes as many."""
    amounts = work.amounts
    if config.box_type == "black":
        return math.ceil(amounts.teacher_tokens / config.batch_size) * _one_token(teacher, compute)
    cached = work.cache != "off"
    each = microbenchmarks.forward_per_token(
        teacher, compute.teacher, compute, amounts.length, None if cached else config.batch_size,
        int8=config.teacher_precision == "int8",
    )  # fmt: skip
    if not cached:
        return each * amounts.teacher_tokens * config.epochs
    seconds = each * amounts.teacher_tokens
    if work.streams:
        moved = 4 * amounts.teacher_tokens * teacher.width * compute.teacher.itemsize * teacher.layers
        seconds += teacher.parameters * compute.teacher.itemsize / _STREAMING_READ + moved / hashing
    return seconds * work.teacher_share


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
    tokens = amounts.student_tokens * config.epochs * (2 if learns_both_texts(config) else 1)
    layers = microbenchmarks.training_per_token(student, compute, amounts.length, config.batch_size)
    products, element_wise = microbenchmarks.loss_seconds(
        student.vocabulary, student.width, compute, compiled=work.compiled
    )
    head = 0.0
    if config.box_type == "white" and config.alpha > 0 and work.cache != "sparse":
        head = microbenchmarks.head_seconds(teacher.vocabulary, teacher.width, compute.teacher, compute.device)
    row = products + element_wise * (_COMPILED if work.compiled else 1) + head
    steps = work.steps * (microbenchmarks.optimizer_seconds(student.parameters, compute.device) + pace * _STEP)
    # The whole validation part is scored at the beginning and whenever a checkpoint is written.
    checkpoints = math.ceil(work.steps / config.checkpoint_interval)
    scored = amounts.held_out_tokens * (layers / 3 + products / 3 + element_wise / 3)
    written = student.parameters * (12 + (4 if config.save_best_model else 0)) * 2 / hashing + pace * _TOKENIZERS
    return (
        tokens * (layers + row) + steps + (1 + checkpoints) * scored + checkpoints * written
        + pace * (2 * _TOKENIZERS + (_COMPILING if work.compiled else 0.0)) + 8 * student.parameters / hashing
    )  # fmt: skip


def _validation(compute: Compute, teacher: ModelShape, student: ModelShape, amounts: Amounts) -> float:
    """Each model scores the test part, and once more beside the teacher; then each writes a little."""
    tokens = amounts.held_out_tokens
    teacher_each = microbenchmarks.forward_per_token(teacher, compute.teacher, compute, amounts.length)
    student_each = microbenchmarks.forward_per_token(
        student, compute.autocast or compute.teacher, compute, amounts.length
    )
    seconds = 0.0
    for model, each, count in ((teacher, teacher_each, 1), (student, student_each, 2)):
        products, element_wise = microbenchmarks.loss_seconds(model.vocabulary, model.width, compute)
        # Scoring needs a sum over the vocabulary, the comparison with the teacher two distributions.
        seconds += count * tokens * 2 * (each + products / 3 + element_wise / 4)
        seconds += count * min(_SPEED_MOST, _SPEED_TOKENS * _one_token(model, compute))
    return seconds


def _one_token(model: ModelShape, compute: Compute) -> float:
    head = model.vocabulary * model.width * compute.generation.itemsize / _READING
    return microbenchmarks.single_token(model, compute) + head
