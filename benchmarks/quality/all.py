"""Every experiment of this folder, one after the other, and their tables: one command, many hours on two cores.

    python benchmarks/quality/all.py --texts PROSE.txt --work FOLDER

Results go to the files beside this one. What is in them is not computed again: cut off, it goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# (script, options, results, what its table compares): in the order of the README.
EXPERIMENTS: tuple[tuple[str, list[str], str, list[str]], ...] = (
    (
        "layers.py", ["--counts", "20", "15", "10", "6", "--steps", "50", "300", "1000"], "layers.jsonl",
        ["--keys", "layers", "way", "start", "steps", "--base", "way=even", "start=cut"],
    ),
    ("two_steps.py", [], "two_steps.jsonl", ["--keys", "way", "layers", "stage", "--base", "way=at once"]),
    (
        "recipes.py", ["--trainings", "ce", "kd", "defaults", "defaults, constant", "quality"], "recipes.jsonl",
        ["--keys", "start", "training", "--base", "training=ce"],
    ),
    ("equal_time.py", [], "equal_time.jsonl", ["--keys", "start", "training", "--base", "training=ce", "start=14 narrower"]),
    (
        "share.py", ["--epochs", "1", "2", "--arms", "ce", "kd", "tuned kd"], "share.jsonl",
        ["--keys", "epochs", "training", "--base", "training=ce"],
    ),
    ("chance.py", [], "chance.jsonl", ["--keys", "training", "draw", "--base", "draw=0"]),
    ("tuned_settings.py", ["--work"], "tuned_settings.jsonl", []),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, required=True, help="a file of prose, the second corpus")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the runs of `tune`")
    arguments = parser.parse_args()
    for script, options, results, table in EXPERIMENTS:
        given = [*options, str(arguments.work)] if options == ["--work"] else options
        command = [str(HERE / script), "--texts", str(arguments.texts), "--results", str(HERE / results), *given]
        subprocess.run([sys.executable, *command], check=True)
        if table:
            print(f"\n{results}", flush=True)
            subprocess.run([sys.executable, str(HERE / "tables.py"), str(HERE / results), *table], check=True)


if __name__ == "__main__":
    main()
