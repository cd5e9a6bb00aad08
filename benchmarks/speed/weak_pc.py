"""`--preset weak-pc` as a whole at the shapes of the default pair, and the same training done naively.

    python benchmarks/speed/weak_pc.py --texts TEXT --work FOLDER --results weak_pc.jsonl

The models have the shapes of gpt2-xl and Tiny-LLM with random weights, and real tokenizers. Naively means: fp32, the teacher
beside the student in every epoch, the loss not compiled; a few such steps are timed and multiplied by the steps of the run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from pairs import default_shapes
from results_file import emit
from run import Bench, machine


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--naive-steps", type=int, default=8)
    arguments = parser.parse_args()
    teacher, student = default_shapes(arguments.work)
    emit(arguments.results, machine())

    name = f"weak-pc-{time.time_ns()}"
    command = [
        sys.executable, "-m", "distillkit", "distill", "--preset", "weak-pc", "--teacher-model-path", str(teacher),
        "--student-model-path", str(student), "--dataset-path", str(arguments.texts), "--output-dir",
        str(arguments.work / "weak-pc"), "--folder-name", name, "--quality-gate", "off", "--no-control",
    ]  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    run = arguments.work / "weak-pc" / name
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    stages = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]
    emit(arguments.results, {
        "what": "weak-pc", "seconds": round(seconds, 1), "train": metrics["train"], "teacher_pass": metrics["teacher_pass"],
        "stages": {stage: [record["started"], record["finished"]] for stage, record in stages.items()},
    })  # fmt: skip

    found = Bench(arguments).distillkit(
        teacher, student, 2, 128, arguments.naive_steps, teacher_cache="off", precision="fp32", compile_loss="off",
        temperature=2.0, alpha=0.7,
    )  # fmt: skip
    each = statistics.median(found["seconds"])
    steps = metrics["train"]["steps"]
    emit(arguments.results, {
        "what": "naive", "step_seconds": round(each, 3), "steps": steps, "training_seconds": round(each * steps),
        "peak_bytes": found["peak_bytes"] - found["baseline_bytes"],
    })  # fmt: skip


if __name__ == "__main__":
    main()
