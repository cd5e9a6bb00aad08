"""One contender of `run.py`, in a process and an environment of its own: trains a few steps and prints what it took.

    python contender.py distillkit|trl|finetune SETTINGS.json

Settings: parameters (distillkit only: of `distill_models`, its whole run; training is what is timed), tokens (the others:
a JSON file of the token lists that distillkit trained on), teacher, student (folders), batch, length, steps, warmup,
threads. Printed: one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
os.environ["OMP_NUM_THREADS"] = str(SETTINGS["threads"])
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments  # noqa: E402

torch.set_num_threads(SETTINGS["threads"])


def memory(name: str) -> int:
    """Bytes of this process: VmRSS is now, VmHWM the highest since `reset_peak`."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {name} here: this needs Linux")


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


class Steps(TrainerCallback):
    """Seconds of each step, and the highest memory from the end of the warm-up on."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0
        self.peak = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if len(self.seconds) == SETTINGS["warmup"]:
            reset_peak()
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)
        self.peak = memory("VmHWM")
        if state.global_step >= SETTINGS["steps"]:
            control.should_training_stop = True


class Tokens(torch.utils.data.Dataset):
    def __init__(self) -> None:
        texts = json.loads(Path(SETTINGS["tokens"]).read_text(encoding="utf-8"))
        self.rows = [torch.tensor(ids) for ids in texts]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Any:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.rows[index]
        return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def padded(name: str, value: int) -> Any:
        return torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=value)

    return {name: padded(name, value) for name, value in (("input_ids", 0), ("labels", -100), ("attention_mask", 0))}


def arguments(kind: Any, **more: Any) -> Any:
    return kind(
        output_dir="/tmp/unused-output", per_device_train_batch_size=SETTINGS["batch"], max_steps=SETTINGS["steps"],
        learning_rate=1e-4, bf16=True, use_cpu=True, report_to=[], save_strategy="no", logging_steps=1000,
        dataloader_pin_memory=False, disable_tqdm=True, gradient_checkpointing=False, **more,
    )  # fmt: skip


def finetune(steps: Steps) -> None:
    student = AutoModelForCausalLM.from_pretrained(SETTINGS["student"], dtype=torch.float32)
    Trainer(
        model=student, args=arguments(TrainingArguments), train_dataset=Tokens(), data_collator=collate,
        callbacks=[steps],
    ).train()  # fmt: skip


def trl(steps: Steps) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    tokenizer = AutoTokenizer.from_pretrained(SETTINGS["teacher"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    GKDTrainer(
        model=AutoModelForCausalLM.from_pretrained(SETTINGS["student"], dtype=torch.float32),
        teacher_model=AutoModelForCausalLM.from_pretrained(SETTINGS["teacher"], dtype=torch.bfloat16),
        # beta 0 is the forward KL; nobody generates.
        args=arguments(GKDConfig, lmbda=0.0, beta=0.0, temperature=1.0, max_length=SETTINGS["length"]),
        processing_class=tokenizer, train_dataset=Dataset.from_list([{name: value.tolist() for name, value in row.items()} for row in Tokens()]),
        data_collator=lambda rows: collate([{name: torch.tensor(row[name]) for name in row} for row in rows]), callbacks=[steps],
    ).train()  # fmt: skip


def distillkit(steps: Steps) -> dict[str, Any]:
    from distillkit import distill_models
    from distillkit.training.trainer import DistillTrainer

    plain = DistillTrainer.__init__

    def watched(self: Any, **given: Any) -> None:
        plain(self, **given)
        self.add_callback(steps)

    DistillTrainer.__init__ = watched  # type: ignore[method-assign]
    result = distill_models(quiet=True, **SETTINGS["parameters"])
    return {"run": str(result.run_directory), **result.metrics}


def main() -> None:
    steps = Steps()
    baseline = memory("VmRSS")
    figures = {"distillkit": distillkit, "trl": trl, "finetune": finetune}[sys.argv[1]](steps) or {}
    measured = steps.seconds[SETTINGS["warmup"] :]
    print(json.dumps({
        "contender": sys.argv[1], "seconds": measured, "warmup_seconds": steps.seconds[: SETTINGS["warmup"]],
        "peak_bytes": steps.peak, "baseline_bytes": baseline, "figures": figures,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
