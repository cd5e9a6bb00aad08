"""Black box on the pair of the experiment: what a user gets who has only the teacher's words.

    python benchmarks/cross_tokenizer/black_box.py --texts TEXT... --work FOLDER --results results.jsonl --seeds 1 2 3

The run is `distillkit distill --box-type black` from the same first weights and the same texts; its student is scored on
the held-out texts of `experiment.py`. The teacher's texts come on top of the true ones, so it takes twice the steps.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from experiment import BATCH, HELD_OUT, LEARNING_RATE, MAX_LENGTH, emit, held_out_scores, line_of
from gold import examples_of
from pair import STUDENTS
from transformers import AutoModelForCausalLM

from distillkit import distill_models
from distillkit.device.precision import choose_compute
from distillkit.settings.parameters import Parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--experiment", default="black-box")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--students", nargs="+", choices=list(STUDENTS), default=list(STUDENTS))
    parser.add_argument("--steps", type=int, default=50, help="of the true texts; the teacher's come on top")
    parser.add_argument("--alpha", type=float, default=0.5)
    arguments = parser.parse_args()
    autocast = choose_compute(Parameters(no_cuda=True)).autocast
    for seed in arguments.seeds:
        arguments.seed = seed
        reader, _, test = examples_of(arguments)
        for shape in arguments.students:
            began = time.monotonic()
            result = distill_models(
                box_type="black", teacher_model_path=arguments.work / "teacher", alpha=arguments.alpha,
                student_model_path=arguments.work / f"{shape}-{arguments.seed}", dataset_path=arguments.texts,
                sample_size=arguments.steps * BATCH, max_length=MAX_LENGTH, batch_size=BATCH, epochs=1,
                learning_rate=LEARNING_RATE, held_out_size=HELD_OUT, seed=arguments.seed, no_cuda=True,
                skip_validation=True, save_plot=False, skip_demo=True, save_best_model=False,
                output_dir=arguments.work / "black-box", folder_name=f"{shape}-{arguments.seed}-{int(time.time())}",
            )  # fmt: skip
            seconds = round(time.monotonic() - began, 1)
            folder = result.run_directory / "student" / "final"
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            scores = held_out_scores(model, test, reader, "student", autocast)
            metrics: dict[str, Any] = json.loads((result.run_directory / "metrics.json").read_text(encoding="utf-8"))
            emit(
                arguments,
                line_of(
                    scores, seed=arguments.seed, student=shape, method=f"black box α={arguments.alpha:g}",
                    steps=metrics["train"]["steps"], tokens=metrics["train"]["tokens"], seconds=seconds,
                ),
            )  # fmt: skip


if __name__ == "__main__":
    main()
