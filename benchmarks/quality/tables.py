"""The tables of the README, from a results file.

    python benchmarks/quality/tables.py benchmarks/quality/recipes.jsonl

Differences are taken text by text between students of one corpus and seed, which saw the same batches and are scored on
the same texts; the interval is a two-level bootstrap (seeds, and within each the texts), 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 4000
Lines = Mapping[int, dict[str, Any]]


def difference(one: Lines, other: Lines) -> tuple[float, float, float]:
    """Bits per byte of `one` less those of `other`: the mean over the seeds that both have, and the ends of the interval."""
    parts = []
    for seed in sorted(set(one) & set(other)):
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


def rows(lines: Sequence[dict[str, Any]], keys: Sequence[str], base: Mapping[str, Any]) -> list[str]:
    """A row for each corpus and combination of `keys`, compared with the line of the same corpus that `base` describes."""
    groups: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        groups[(line["corpus"], *(line.get(key) for key in keys))][line["seed"]] = line
    found = []
    for group, own in groups.items():
        facts = {**dict(zip(keys, group[1:], strict=True)), **base}
        other = groups.get((group[0], *(facts.get(key) for key in keys)), {})
        mean = np.mean([line["bits_per_byte"] for line in own.values()])
        words = (
            ""
            if other is own or not set(own) & set(other)
            else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference(own, other))
        )
        names = ["" if value is None else str(value) for value in group]
        found.append(f"| {' | '.join(names)} | {len(own)} | {mean:.4f} | {words} |")
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--keys", nargs="+", default=["start", "training", "learning_rate", "steps"])
    parser.add_argument("--base", nargs="+", default=["training=ce"], help="NAME=VALUE of the line to compare with")
    arguments = parser.parse_args()
    lines = [json.loads(text) for text in arguments.results.read_text(encoding="utf-8").splitlines()]
    given = dict(item.split("=", 1) for item in arguments.base)
    base = {name: int(value) if value.isdigit() else value for name, value in given.items()}
    print(f"| corpus | {' | '.join(arguments.keys)} | seeds | bits per byte | less {' '.join(arguments.base)} |")
    print("|" + "---|" * (len(arguments.keys) + 4))
    print("\n".join(rows(lines, arguments.keys, base)))


if __name__ == "__main__":
    main()
