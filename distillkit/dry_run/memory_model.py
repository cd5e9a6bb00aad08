"""How much memory a run takes at its peak, from sizes alone."""

from __future__ import annotations

from dataclasses import replace

from distillkit.data.splitting import held_out_examples
from distillkit.device.precision import Compute
from distillkit.dry_run.on_policy import state_bytes
from distillkit.dry_run.time_model import Work
from distillkit.evaluation.batched_forward import LOGITS_AT_ONCE, WIDE_AT_ONCE
from distillkit.losses.chunked import rows_per_chunk
from distillkit.models.shape import ModelShape
from distillkit.run.student_size import trained_numbers
from distillkit.settings.conditions import is_on_policy
from distillkit.settings.parameters import Parameters, default
from distillkit.training.decisions import TRAINING_BYTES
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
    config: Parameters, compute: Compute, teacher: ModelShape | None, student: ModelShape | None, work: Work
) -> int | None:
    """The peak; None where a size is not known.

    Student, gradient and what the optimizer remembers (both of the adapter alone, where one is trained), its weights once more in the format of the products, beside the teacher or, with the
    cache, only beside its head; what the backward pass needs, the held-out score, and of the vocabulary-sized tensors of
    the loss one chunk of rows. A teacher that is tuned is trained in the same way before.
    """
    if teacher is None or student is None:
        return None
    training = _training(config, compute, student, work, beside=teacher if config.alpha > 0 else None)
    in_use = _in_use(compute, teacher, training, work, config)
    if work.tunes:  # It is over before the student is loaded.
        own = replace(config, optimizer=default("optimizer"), adapter=default("adapter"))
        in_use = max(in_use, _training(own, compute, teacher, replace(work, compiled=False)))
    return _LIBRARIES_BYTES + round(_held(compute) * in_use)


def _training(
    config: Parameters, compute: Compute, student: ModelShape, work: Work, beside: ModelShape | None = None
) -> int:
    """What training a model takes.

    Args:
        beside: the teacher whose distributions it learns from.
    """
    itemsize = compute.teacher.itemsize
    rows = min(
        config.batch_size * config.max_length,
        rows_per_chunk(student.vocabulary, compute.device, compiled=work.compiled),
    )
    # In their own format; across tokenizers the teacher's probabilities are in fp32, and so is what they are mapped to.
    of_teacher = 0 if beside is None else (itemsize + 4) * beside.vocabulary + 4 * student.vocabulary
    chunk = rows * (itemsize * student.vocabulary + of_teacher)
    copies = 0 if compute.autocast is None else itemsize * student.parameters
    tokens = config.batch_size * config.max_length
    activations = _ACTIVATION_BYTES * tokens * student.layers * student.inner_width
    if config.gradient_checkpointing:  # The input of every layer, and all of the one that is being computed again.
        activations = tokens * student.inner_width * (4 * student.layers + _ACTIVATION_BYTES)
    # The held-out score holds the logits of a batch, and a few rows of them in fp32.
    scored = min(LOGITS_AT_ONCE, held_out_examples(config) * config.max_length * student.vocabulary)
    scoring = 4 * scored + 3 * 4 * min(scored, WIDE_AT_ONCE)
    # Freed memory is kept, so the one does not make room for the other.
    if config.adapter == "none":
        training = 8 * student.parameters + remembered_bytes(config.optimizer, student)
    else:  # The student's weights; of the adapter its own, their gradients and two moments.
        training = 4 * student.parameters + TRAINING_BYTES * trained_numbers(config, student)
    training += copies + chunk + activations + scoring + state_bytes(config, student, itemsize)
    if work.compiled:
        training += _COMPILER_BYTES
    return training


def _held(compute: Compute) -> float:
    return _HELD_PER_BYTE if compute.device.type == "cpu" else 1.0


def _in_use(compute: Compute, teacher: ModelShape, training: int, work: Work, config: Parameters) -> int:
    """The larger of what the teacher's part and the training take, or both where they run side by side."""
    if config.alpha == 0:
        return training
    if config.box_type == "black":  # The teacher has written everything before the student is loaded.
        return max(compute.generation.itemsize * teacher.parameters, training)
    itemsize = compute.teacher.itemsize
    whole = itemsize * teacher.parameters
    if is_on_policy(vars(config)):  # The teacher itself is there in any case.
        cached = 0 if work.cache in ("off", "sparse") else itemsize * teacher.vocabulary * teacher.width
        return training + whole + cached
    if work.cache == "off":
        return training + whole
    if work.streams:
        frame = teacher.parameters - teacher.vocabulary * teacher.width
        whole = itemsize * (frame // max(1, teacher.layers) + 2 * teacher.vocabulary * teacher.width)
    head = 0 if work.cache == "sparse" else itemsize * teacher.vocabulary * teacher.width
    return max(whole, training + head)
