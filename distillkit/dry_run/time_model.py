"""How long each phase of a run will take, from what layers of its models take on this machine now (`measuring`).

What does not depend on the models (reading tokenizers, making datasets, plotting) is counted in seconds of a quiet
machine and stretched by how much slower this one is at present.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from distillkit.device.precision import Compute
from distillkit.dry_run import microbenchmarks
from distillkit.dry_run.microbenchmarks import Shape
from distillkit.losses.kernels import WORTH_COMPILING, compiler_available
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
class Part:
    """A model of the run.

    Attributes:
        shape: for measuring its layers.
        parameters: all of them.
        vocabulary, width: of the head.
    """

    shape: Shape
    parameters: int
    vocabulary: int
    width: int


@dataclass(frozen=True)
class Amounts:
    """What is to be read.

    Attributes:
        student_tokens, teacher_tokens: of the training texts, once.
        held_out_tokens: of the validation part, and of the test part.
        steps: optimizer steps.
        length: tokens of a text.
    """

    student_tokens: int
    teacher_tokens: int
    held_out_tokens: int
    steps: int
    length: int


def phase_seconds(
    config: Parameters,
    compute: Compute,
    teacher: Part,
    student: Part,
    amounts: Amounts,
    stages: list[str],
    *,
    cached: bool,
    streams: bool,
) -> dict[str, float]:
    """Seconds for each phase of the stages: "check-env", "prepare-data", "teacher pass", "training", "validate", …

    Args:
        cached: the teacher reads every text once, else in every epoch.
        streams: the teacher runs block by block.
    """
    hashing = microbenchmarks.hashing_rate()
    pace = _QUIET_HASHING / hashing
    both = teacher.parameters + student.parameters
    loading = {
        "teacher": pace * _LOADING + teacher.parameters * compute.teacher.itemsize / hashing,
        "student": pace * _LOADING + 4 * student.parameters / hashing,
    }
    texts = amounts.student_tokens + 2 * amounts.held_out_tokens
    found: dict[str, float] = {}
    if "check-env" in stages:
        found["check-env"] = pace * _CHECK
    if "prepare-data" in stages:
        found["prepare-data"] = pace * (2 * _TOKENIZERS + texts / _ENCODING) + 3 * both / hashing
    if "distill" in stages:
        if config.alpha > 0:
            found["teacher pass"] = _reading(config, compute, teacher, amounts, cached)
            if streams:
                moved = 4 * amounts.teacher_tokens * teacher.width * compute.teacher.itemsize * teacher.shape.layers
                weights = teacher.parameters * compute.teacher.itemsize
                found["teacher pass"] += weights / _STREAMING_READ + moved / hashing
        found["training"] = _training(config, compute, teacher, student, amounts, pace, hashing) + loading["student"]
        if config.alpha > 0:
            found["training"] += loading["teacher"]
    others = pace * _TOKENIZERS + loading["teacher"] + 2 * loading["student"]
    if "validate" in stages:
        found["validate"] = _validation(compute, teacher, student, amounts) + others
    if "demo" in stages:
        writing = _one_token(teacher, compute) + 2 * _one_token(student, compute)
        found["demo"] = _DEMO_TOKENS * writing + others + pace * _GENERATING
    if "plot" in stages:
        found["plot"] = pace * _PLOTTING
    return found


def _reading(config: Parameters, compute: Compute, teacher: Part, amounts: Amounts, cached: bool) -> float:
    """The teacher's part: it reads all texts, once or in every epoch, or writes as many."""
    if config.box_type == "black":
        return math.ceil(amounts.teacher_tokens / config.batch_size) * _one_token(teacher, compute)
    each = microbenchmarks.forward_per_token(
        teacher.shape, compute.teacher, compute, amounts.length, None if cached else config.batch_size,
        int8=config.teacher_precision == "int8",
    )  # fmt: skip
    return each * amounts.teacher_tokens * (1 if cached else config.epochs)


def compiles(config: Parameters, compute: Compute, tokens: int, vocabulary: int) -> bool:
    """Whether the loss of so many rows would be compiled, as the training decides it."""
    if config.compile_loss == "off" or not compiler_available(compute.device):
        return False
    return config.compile_loss == "on" or tokens * vocabulary >= WORTH_COMPILING


def _training(
    config: Parameters, compute: Compute, teacher: Part, student: Part, amounts: Amounts, pace: float, hashing: float
) -> float:
    tokens = amounts.student_tokens * config.epochs * (2 if config.box_type == "black" and 0 < config.alpha < 1 else 1)
    layers = microbenchmarks.training_per_token(student.shape, compute, amounts.length, config.batch_size)
    compiled = compiles(config, compute, tokens, student.vocabulary)
    products, element_wise = microbenchmarks.loss_seconds(student.vocabulary, student.width, compute, compiled=compiled)
    head = 0.0
    if config.box_type == "white" and config.alpha > 0 and config.teacher_cache != "sparse":
        head = microbenchmarks.head_seconds(teacher.vocabulary, teacher.width, compute.teacher, compute.device)
    row = products + element_wise * (_COMPILED if compiled else 1) + head
    steps = amounts.steps * (microbenchmarks.optimizer_seconds(student.parameters, compute.device) + pace * _STEP)
    # The whole validation part is scored at the beginning and whenever a checkpoint is written.
    checkpoints = math.ceil(amounts.steps / config.checkpoint_interval)
    scored = amounts.held_out_tokens * (layers / 3 + products / 3 + element_wise / 3)
    written = student.parameters * (12 + (4 if config.save_best_model else 0)) * 2 / hashing + pace * _TOKENIZERS
    return (
        tokens * (layers + row) + steps + (1 + checkpoints) * scored + checkpoints * written
        + pace * (2 * _TOKENIZERS + (_COMPILING if compiled else 0.0)) + 8 * student.parameters / hashing
    )  # fmt: skip


def _validation(compute: Compute, teacher: Part, student: Part, amounts: Amounts) -> float:
    """Each model scores the test part, and once more beside the teacher; then each writes a little."""
    tokens = amounts.held_out_tokens
    teacher_each = microbenchmarks.forward_per_token(teacher.shape, compute.teacher, compute, amounts.length)
    student_each = microbenchmarks.forward_per_token(
        student.shape, compute.autocast or compute.teacher, compute, amounts.length
    )
    seconds = 0.0
    for part, each, count in ((teacher, teacher_each, 1), (student, student_each, 2)):
        products, element_wise = microbenchmarks.loss_seconds(part.vocabulary, part.width, compute)
        # Scoring needs a sum over the vocabulary, the comparison with the teacher two distributions.
        seconds += count * tokens * 2 * (each + products / 3 + element_wise / 4)
        seconds += count * min(_SPEED_MOST, _SPEED_TOKENS * _one_token(part, compute))
    return seconds


def _one_token(part: Part, compute: Compute) -> float:
    head = part.vocabulary * part.width * compute.generation.itemsize / _READING
    return microbenchmarks.single_token(part.shape, compute) + head
