"""How much memory a run takes at its peak, from sizes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distillkit.data.splitting import held_out_examples
from distillkit.device.precision import Compute
from distillkit.dry_run.on_policy import state_bytes
from distillkit.dry_run.time_model import TaughtBy, Work
from distillkit.evaluation.batched_forward import HEAD_AT_ONCE, LOGITS_AT_ONCE, WIDE_AT_ONCE
from distillkit.losses.chunked import rows_per_chunk
from distillkit.models.shape import ModelShape
from distillkit.processes.taking_part import process_count
from distillkit.run.student_size import trained_numbers
from distillkit.settings.conditions import is_on_policy
from distillkit.settings.declared import default
from distillkit.settings.parameters import Parameters
from distillkit.training.decisions import TRAINING_BYTES, is_divided
from distillkit.training.optimizers import remembered_bytes

# What Python, torch and transformers take before anything is loaded.
_LIBRARIES_BYTES = 800_000_000
# Of a token, layer and number of its width: what is kept for the backward pass. Measured on a Llama with bf16 autocast.
_ACTIVATION_BYTES = 50
# What the compiler of the loss takes besides.
_COMPILER_BYTES = 100_000_000
# What a process on a CPU holds for each byte that is in use at the peak: freed memory stays in it (`device.malloc`), in blocks
# that do not always fit again. Measured on glibc 2.36: 1.21 to 1.35 with SmolLM2-135M, cached, live and black box.
_HELD_PER_BYTE = 1.25


def memory_bytes(
    config: Parameters,
    compute: Compute,
    teacher: ModelShape | None,
    student: ModelShape | None,
    work: Work,
    others: Sequence[TaughtBy] = (),
) -> int | None:
    """The peak; None where a size is not known.

    Student, gradient and what the optimizer remembers (both of the adapter alone, where one is trained), its weights once more in the format of the products, beside the teacher or, with the
    cache, only beside its head; what the backward pass needs, the held-out score, and of the vocabulary-sized tensors of
    the loss one chunk of rows. A teacher that is tuned is trained in the same way before.
    """
    if teacher is None or student is None:
        return None
    training = _training(config, compute, student, work, beside=teacher if config.alpha > 0 else None)
    in_use = _in_use(compute, [TaughtBy(teacher, work), *others], training, config)
    if work.tunes:  # It is over before the student is loaded.
        own = replace(config, optimizer=default("optimizer"), adapter=default("adapter"))
        in_use = max(in_use, _training(own, compute, teacher, replace(work, compiled=False), processes=1))
    return _LIBRARIES_BYTES + round(_held(compute) * in_use)


def _training(
    config: Parameters,
    compute: Compute,
    student: ModelShape,
    work: Work,
    beside: ModelShape | None = None,
    processes: int | None = None,
) -> int:
    """What training a model takes.

    Args:
        beside: the teacher whose distributions it learns from.
        processes: that train it together; default: all.
    """
    processes = processes or process_count()
    itemsize = compute.teacher.itemsize
    # Of a step that no process shares, or of its share in one.
    micro = min(config.batch_size, config.batch_size * config.gradient_accumulation // processes)
    tokens = max(1, micro) * config.max_length
    rows = min(tokens, rows_per_chunk(student.vocabulary, compute.device))
    # In their own format; across tokenizers the teacher's probabilities are in fp32, and so is what they are mapped to.
    of_teacher = 0 if beside is None else (itemsize + 4) * beside.vocabulary + 4 * student.vocabulary
    chunk = rows * (itemsize * student.vocabulary + of_teacher)
    copies = 0 if compute.autocast is None else itemsize * student.parameters
    activations = _ACTIVATION_BYTES * tokens * student.layers * student.inner_width
    if config.gradient_checkpointing:  # The input of every layer, and all of the one that is being computed again.
        activations = tokens * student.inner_width * (4 * student.layers + _ACTIVATION_BYTES)
    # The held-out score holds the logits of the rows that meet the head at once, or of a batch, and fewer of them in fp32.
    scored = held_out_examples(config) * config.max_length * student.vocabulary
    by_rows = student.head_is_plain and not is_divided(config, processes)
    scoring = 4 * min(scored, HEAD_AT_ONCE if by_rows else LOGITS_AT_ONCE)
    scoring += 3 * 4 * min(scored, WIDE_AT_ONCE)
    # Freed memory is kept, so the one does not make room for the other.
    training = _states(config, compute, student, processes)
    training += copies + chunk + activations + scoring + state_bytes(config, student, itemsize)
    if work.compiled:
        training += _COMPILER_BYTES
    return training


def _states(config: Parameters, compute: Compute, student: ModelShape, processes: int) -> int:
    """Weights, gradients and what the optimizer remembers, in one of the processes."""
    if config.adapter == "none":
        trained, states = student.parameters, 8 * student.parameters + remembered_bytes(config.optimizer, student)
    else:  # The student's weights; of the adapter its own, their gradients and two moments.
        trained = trained_numbers(config, student)
        states = 4 * student.parameters + TRAINING_BYTES * trained
    if processes == 1 or not is_divided(config, processes):
        return states
    layer = (student.parameters - student.outside) // max(1, student.layers)
    # Gathered: what no layer has, and two layers; each with its gradient.
    gathered = 8 * (student.outside + 2 * layer)
    if compute.device.type == "cpu":  # Elsewhere it is the memory of the machine, not of the device.
        gathered = max(gathered, 4 * student.parameters + 8 * trained)  # By process 0, for a checkpoint.
    return states // processes + gathered


def _held(compute: Compute) -> float:
    return _HELD_PER_BYTE if compute.device.type == "cpu" else 1.0


def _in_use(compute: Compute, teachers: Sequence[TaughtBy], training: int, config: Parameters) -> int:
    """The larger of what the teachers' part and the training take, or both where they run side by side."""
    if config.alpha == 0:
        return training
    if config.box_type == "black":  # The teacher has written everything before the student is loaded.
        return max(compute.generation.itemsize * teachers[0].shape.parameters, training)
    stays = is_on_policy(vars(config))
    alone, beside = zip(*(_teacher_bytes(compute, teacher, stays) for teacher in teachers), strict=True)
    # One after the other fills its cache.
    return max(*alone, training + sum(beside))


def _teacher_bytes(compute: Compute, teacher: TaughtBy, stays: bool) -> tuple[int, int]:
    """What a white-box teacher takes while its cache is filled, and beside the training.

    Args:
        stays: whether the teacher itself is in memory in any case.
    """
    shape, work, itemsize = teacher.shape, teacher.work, compute.teacher.itemsize
    whole = itemsize * shape.parameters // work.devices
    head = 0 if work.cache in ("off", "sparse") else itemsize * shape.vocabulary * shape.width
    if stays or work.cache == "off":
        return 0, whole + head
    if work.streams:
        frame = shape.parameters - shape.vocabulary * shape.width
        whole = itemsize * (frame // max(1, shape.layers) + 2 * shape.vocabulary * shape.width)
    return whole, head
