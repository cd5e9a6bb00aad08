"""What the teacher caches cost in quality: the same run with each of them, scored on held-out texts.

    python benchmarks/speed/quality.py --texts TEXT --work FOLDER --results quality.jsonl

SmolLM2-135M into eight of its layers. The runs of a seed differ in the cache alone: `off` and `exact` are to agree to the
last digits, what a sparse cache loses is its cost.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pairs import smollm2
from results_file import emit

from distillkit import distill_models

WAYS: dict[str, dict[str, Any]] = {
    "exact": {"teacher_cache": "exact"},
    "sampling, 64 draws": {"teacher_cache": "sparse", "sparse_method": "sampling", "sparse_size": 64},
    "sampling, 16 draws": {"teacher_cache": "sparse", "sparse_method": "sampling", "sparse_size": 16},
    "top-k, 64 ids": {"teacher_cache": "sparse", "sparse_method": "top-k", "sparse_size": 64},
    "top-k, 16 ids": {"teacher_cache": "sparse", "sparse_method": "top-k", "sparse_size": 16},
    "off": {"teacher_cache": "off"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    arguments = parser.parse_args()
    teacher, student = smollm2(arguments.work)
    done = set()
    if arguments.results.exists():
        lines = [json.loads(line) for line in arguments.results.read_text(encoding="utf-8").splitlines()]
        done = {(line["way"], line["seed"]) for line in lines}
    for seed in arguments.seeds:
        for way in arguments.ways:
            if (way, seed) in done:
                continue
            result = distill_models(
                teacher_model_path=teacher, student_model_path=student, dataset_path=arguments.texts, seed=seed,
                sample_size=4 * arguments.steps, batch_size=4, max_length=128, epochs=1, temperature=1.0, alpha=0.9,
                learning_rate=5e-4, held_out_size=60, checkpoint_interval=1000, save_best_model=False, save_plot=False,
                skip_demo=True, no_cuda=True, quiet=True, output_dir=arguments.work / "quality",
                folder_name=f"{way.replace(', ', '-').replace(' ', '-')}-{seed}", force=True, **WAYS[way],
            )  # fmt: skip
            scores = {
                name: score["bits_per_byte"] for name, score in (("before", result.before), ("after", result.after))
            }
            line = {"way": way, "seed": seed, "steps": arguments.steps, **scores, "gain": result.gain}
            emit(arguments.results, line)


if __name__ == "__main__":
    main()
