"""What `--dry-run` says a run will take, against what the run then takes, phase by phase.

    python benchmarks/speed/estimates.py --texts TEXT --work FOLDER --results estimates.jsonl

Plan and run follow each other in processes of their own, on models that everybody can make: the quickstart as it is
shipped, SmolLM2-135M and eight of its layers, and the smallest models of the tests' kind. A ratio is estimate / measurement:
1/1.3 to 1.3 is wanted of the total time, 1/1.25 to 1.25 of memory. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from pairs import smollm2
from results_file import emit
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

TIME_BOUND, MEMORY_BOUND = 1.3, 1.25


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--sample-size", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument(
        "--only",
        nargs="*",
        default=None,
        choices=("quickstart", "tiny", "smollm2", "smollm2-cached", "smollm2-streamed", "smollm2-black"),
    )
    arguments = parser.parse_args()
    teacher, student = smollm2(arguments.work)
    tiny = {
        name: small(arguments.work / f"tiny-{name}", teacher, layers)
        for name, layers in (("teacher", 4), ("student", 1))
    }
    runs: dict[str, list[str]] = {
        "quickstart": ["--preset", "quickstart"],
        "tiny": [*on(arguments, tiny["teacher"], tiny["student"]), "--epochs", "2"],
        "smollm2": [*on(arguments, teacher, student), "--epochs", "1"],
        "smollm2-cached": [*on(arguments, teacher, student), "--epochs", "2", "--teacher-cache", "exact"],
        "smollm2-streamed": [*on(arguments, teacher, student), "--epochs", "1", "--teacher-streaming", "on"],
        "smollm2-black": [*on(arguments, teacher, student), "--epochs", "1", "--box-type", "black"],
    }
    outside = [
        what
        for name, options in runs.items()
        if arguments.only is None or name in arguments.only
        for what in compare(arguments, name, options)
    ]
    print("outside the bounds: " + (", ".join(outside) or "nothing"))


def on(arguments: argparse.Namespace, teacher: Path, student: Path) -> list[str]:
    """The options of a run with these models."""
    return [
        "--teacher-model-path", str(teacher), "--student-model-path", str(student), "--dataset-path", str(arguments.texts),
        "--sample-size", str(arguments.sample_size), "--max-length", str(arguments.length), "--held-out-size", "24",
        "--no-skip-demo",
    ]  # fmt: skip


def small(folder: Path, tokenizer: Path, layers: int) -> Path:
    """A GPT-2 of 64 numbers a token with random weights and SmolLM2's tokenizer."""
    if not (folder / "config.json").exists():
        spelled = AutoTokenizer.from_pretrained(tokenizer)
        torch.manual_seed(layers)
        config = GPT2Config(vocab_size=len(spelled), n_embd=64, n_layer=layers, n_head=4, n_positions=256)
        GPT2LMHeadModel(config).save_pretrained(folder)
        spelled.save_pretrained(folder)
    return folder


def compare(arguments: argparse.Namespace, name: str, options: list[str]) -> list[str]:
    """Plan, run, and write both down; what is outside the bounds."""
    output = arguments.work / "estimates" / f"{name}-{time.time_ns()}"
    command = [
        sys.executable, "-m", "distillkit", "distill", *options, "--quality-gate", "off", "--allow-out-of-range",
        "--no-cuda", "--no-install-deps", "--output-dir", str(output), "--folder-name", "run", "--json",
    ]  # fmt: skip
    began = time.monotonic()
    plan = json.loads(told([*command, "--dry-run"]))["estimate"]
    planning = time.monotonic() - began
    told(command)
    measured = phases_of(output / "run")
    outside = []
    for phase, estimated in [*plan["phases"].items(), ("total", plan["total_seconds"])]:
        seconds = measured[phase] if phase != "total" else sum(measured.values())
        ratio = estimated / max(seconds, 1e-9)
        if phase == "total" and not 1 / TIME_BOUND <= ratio <= TIME_BOUND:
            outside.append(f"{name}: time {ratio:.2f}")
        line = {"pair": name, "phase": phase, "estimated": round(estimated, 2), "measured": round(seconds, 2), "ratio": round(ratio, 2)}  # fmt: skip
        emit(arguments.results, line)
    existing = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    peak = peak_of(output / "run")
    ratio = plan["memory_bytes"] / peak
    if not 1 / MEMORY_BOUND <= ratio <= MEMORY_BOUND:
        outside.append(f"{name}: memory {ratio:.2f}")
    emit(arguments.results, {
        "pair": name, "planning_seconds": round(planning, 1), "disk_estimated": plan["disk_bytes"], "disk_left": existing,
        "memory_estimated": plan["memory_bytes"], "memory_measured": peak, "memory_ratio": round(ratio, 2),
    })  # fmt: skip
    return outside


def told(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout


def phases_of(run: Path) -> dict[str, float]:
    """Seconds of each stage; the teacher pass apart from the training where it was one of its own."""
    stages = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]
    found = {name: float(record["metrics"]["seconds"]) for name, record in stages.items()}
    figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    whole = found.pop("distill")
    if "teacher_pass" not in figures:  # Black box: what is not training is the teacher's writing.
        return {**found, "teacher pass": whole - figures["train"]["seconds"], "training": figures["train"]["seconds"]}
    teacher = figures["teacher_pass"]["seconds"]
    return {**found, "teacher pass": teacher, "training": whole - teacher}


def peak_of(run: Path) -> int:
    return int(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["train"]["peak_memory_bytes"])


if __name__ == "__main__":
    main()
