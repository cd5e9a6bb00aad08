"""Tables of the experiment's results, with intervals.

    python benchmarks/cross_tokenizer/analysis.py results.jsonl --experiment main --reference "CE only"

A difference between two methods is taken text by text: both students began with the same weights, saw the same batches
and are scored on the same texts. The interval is a two-level bootstrap: seeds are drawn with replacement, and within
each the held-out texts; 95 % of the draws of Σnll / Σbytes lie in it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 4000


def read(path: Path, experiment: str) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """(student, method) -> seed -> line."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["experiment"] == experiment:
            found[line["student"], line["method"]][line["seed"]] = line
    return found


def difference(one: Mapping[int, dict[str, Any]], other: Mapping[int, dict[str, Any]]) -> tuple[float, float, float]:
    """Bits per byte of `one` less those of `other`: mean over the seeds that both have, and the ends of the interval."""
    seeds = sorted(set(one) & set(other))
    parts = []
    for seed in seeds:
        left, right = one[seed], other[seed]
        if left["documents"] != right["documents"] or left["bytes"] != right["bytes"]:
            raise SystemExit(f"seed {seed}: not the same texts")
        parts.append((np.array(left["nll"]) - np.array(right["nll"]), np.array(left["bytes"])))

    def figure(nll: np.ndarray, size: np.ndarray) -> float:
        return float(nll.sum() / size.sum() / math.log(2))

    generator = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        values = []
        for index in generator.integers(0, len(parts), len(parts)):
            nll, size = parts[index]
            texts = generator.integers(0, len(nll), len(nll))
            values.append(figure(nll[texts], size[texts]))
        draws.append(np.mean(values))
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(np.mean([figure(*part) for part in parts])), float(low), float(high)


def table(results: dict[tuple[str, str], dict[int, dict[str, Any]]], student: str, reference: str) -> str:
    rows = ["| method | bits per byte | less " + reference + " [95 %] | seeds | training, s |", "|---|---|---|---|---|"]
    methods = [method for shape, method in results if shape == student]
    mean = {
        method: float(np.mean([line["bits_per_byte"] for line in results[student, method].values()]))
        for method in methods
    }
    for method in sorted(methods, key=lambda name: mean[name]):
        lines = results[student, method]
        words = "–"
        if method != reference and (student, reference) in results:
            middle, low, high = difference(lines, results[student, reference])
            words = f"{middle:+.4f} [{low:+.4f}, {high:+.4f}]"
        seconds = np.mean([line["seconds"] for line in lines.values()])
        rows.append(f"| {method} | {mean[method]:.4f} | {words} | {len(lines)} | {seconds:.0f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--experiment", default="main")
    parser.add_argument("--reference", default="CE only")
    arguments = parser.parse_args()
    results = read(arguments.results, arguments.experiment)
    teacher = results.pop(("", "teacher"), {})
    for seed, line in sorted(teacher.items()):
        print(f"teacher, texts of seed {seed}: {line['bits_per_byte']:.4f} bits per byte")
    for student in dict.fromkeys(shape for shape, _ in results):
        print(f"\n{student}\n\n{table(results, student, arguments.reference)}")


if __name__ == "__main__":
    main()
