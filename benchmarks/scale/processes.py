"""Two processes of one thread each against one process of two threads: tokens/s of the training, seconds of the whole command.

    python benchmarks/scale/processes.py [--folder FOLDER] [--batches 4 16] [--rounds 3] [--results processes.jsonl]

The quickstart's pair and texts, prepared once, the teacher's cache filled once; then `distill` alone for about 9,600 tokens, one and two
processes in turn. A step has as many examples either way. One line of JSON for each command; the ratios at the end are medians of
the rounds, of one process's figures in the same round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

EXAMPLES = 96
OWN = [sys.executable, "-m", "distillkit"]


def prepare(folder: Path, batches: list[int]) -> None:
    """The data of every command, and the cache of the teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    named = ["--output-dir", str(folder), "--folder-name", "base"]
    subprocess.run(
        [*OWN, "prepare-data", "--preset", "quickstart", "--sample-size", "100", *named, "--quiet"], check=True
    )
    command(folder, "cache", 1, max(batches))


def command(folder: Path, name: str, processes: int, batch: int) -> dict[str, Any]:
    """Train once, in a copy of the prepared run.

    Returns:
        tokens_per_second of the training, seconds of the command.
    """
    run = folder / name
    shutil.copytree(folder / "base", run)
    train = ["distill", "--run", str(run), "--only", "--batch-size", str(batch), "--max-steps", str(EXAMPLES // batch)]
    train += ["--skip-validation", "--no-control", "--quiet"]
    own = [*OWN, *train] if processes == 1 else [*OWN, "launch", "--processes", str(processes), "--", *train]
    began = time.perf_counter()
    subprocess.run(own, check=True)
    seconds = time.perf_counter() - began
    figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["train"]
    shutil.rmtree(run)
    return {"tokens_per_second": figures["tokens_per_second"], "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("processes-benchmark"))
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "processes.jsonl")
    asked = parser.parse_args()
    prepare(asked.folder, asked.batches)
    lines: list[dict[str, Any]] = []
    for batch in asked.batches:
        for turn in range(1, asked.rounds + 1):
            for processes in (1, 2):
                figures = command(asked.folder, f"{processes}-{batch}-{turn}", processes, batch)
                lines.append({"processes": processes, "batch_size": batch, "round": turn, **figures})
                print(json.dumps(lines[-1]), flush=True)
    asked.results.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for batch in asked.batches:
        one, two = (
            [line for line in lines if line["batch_size"] == batch and line["processes"] == count] for count in (1, 2)
        )
        speed = statistics.median(
            b["tokens_per_second"] / a["tokens_per_second"] for a, b in zip(one, two, strict=True)
        )
        whole = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(one, two, strict=True))
        print(f"{batch} examples a step: {speed:.2f} of one process's tokens/s, the whole command {whole:.2f} as fast")


if __name__ == "__main__":
    main()
