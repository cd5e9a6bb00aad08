"""`transformers.TrainingArguments` for a configuration, with a note of every default that is changed."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import TrainingArguments

from distillkit.data.step_shares import share_of_step
from distillkit.device.precision import Compute
from distillkit.settings.parameters import Parameters
from distillkit.training.optimizers import optim_name

# A line per step up to this many steps; then thinned out, because each line costs a synchronisation with the device.
_LINES = 2000


def total_steps(config: Parameters, examples: int) -> int:
    """Optimizer steps of the whole training, as the Trainer counts them: `max_steps`, or those of all epochs."""
    return config.max_steps or _steps_of_epoch(config, examples) * config.epochs


def _steps_of_epoch(config: Parameters, examples: int) -> int:
    batches = math.ceil(examples / config.batch_size)
    return math.ceil(batches / config.gradient_accumulation)


def times_read(config: Parameters, examples: int) -> float:
    """How often each text is read in the whole training: `epochs`, or as `max_steps` come to."""
    if config.max_steps is None or examples < 1:
        return config.epochs
    return config.max_steps / _steps_of_epoch(config, examples)


def training_arguments(
    config: Parameters,
    compute: Compute,
    folder: Path,
    examples: int,
    *,
    resumed: bool,
    steps: int | None = None,
    processes: int = 1,
) -> TrainingArguments:
    """Arguments of the Trainer.

    Args:
        folder: where checkpoints go.
        examples: training examples.
        resumed: whether an earlier attempt has begun already.
        steps: optimizer steps, where these end the training and not the epochs.
        processes: that compute every step together.

    Raises:
        UsageError: a step cannot be divided between them.
    """
    share = share_of_step(config.batch_size, config.gradient_accumulation, processes)
    most = config.max_steps or -1 if steps is None else steps
    steps = total_steps(config, examples) if steps is None else steps
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=most,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=share.batch_size,
        gradient_accumulation_steps=share.accumulation,
        learning_rate=config.learning_rate,
        warmup_steps=round(config.warmup_fraction * steps),
        optim=optim_name(config, compute),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=compute.autocast is torch.bfloat16,
        fp16=compute.autocast is torch.float16,
        use_cpu=compute.device.type == "cpu",
        seed=config.seed,
        data_seed=config.seed,
        logging_strategy="steps",
        logging_steps=max(1, steps // _LINES),
        logging_nan_inf_filter=False,  # the Trainer would log NaN as 0 and go on
        eval_strategy="steps",
        eval_steps=config.checkpoint_interval,
        eval_on_start=not resumed,  # the line is in metrics.jsonl already, and a later step is no start
        metric_for_best_model="eval_bits_per_byte",
        greater_is_better=False,
        save_strategy="steps",
        save_steps=config.checkpoint_interval,
        dataloader_pin_memory=compute.device.type == "cuda",
        remove_unused_columns=False,  # the objective needs them all
        disable_tqdm=True,
        report_to=[],
        skip_memory_metrics=True,
    )
