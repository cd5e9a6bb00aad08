"""The teacher pass in int8 against the format of the run: tokens per second, and what it costs in bits per byte.

    python benchmarks/speed/int8.py --texts TEXT --work FOLDER --results int8.jsonl

Both formats take turns in one process on the same texts; tokens per second are of the fastest round of each. Costs are
of the teacher itself on held-out texts, and of a student made of eight of its layers, once trained with each teacher.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import torch
from pairs import smollm2
from results_file import emit
from torch import nn

from distillkit import distill_models
from distillkit.console import Console
from distillkit.data.batching import attention_mask, pad_right
from distillkit.data.examples import load_examples
from distillkit.device.int8 import quantise_layers
from distillkit.device.precision import choose_compute
from distillkit.evaluation.bits_per_byte import Scores, score
from distillkit.evaluation.bootstrap import paired_bootstrap
from distillkit.evaluation.held_out import scored_texts
from distillkit.models.pruning import decoder_blocks
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import open_pair
from distillkit.settings.parameters import Parameters
from distillkit.teachers.live import LiveTeacher


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=512, help="texts that each student trains on")
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher, student = smollm2(arguments.work)
    emit(arguments.results, {"machine": machine(), "threads": arguments.threads, "torch": torch.__version__})

    # The first seed's run prepares the texts that both formats of the teacher are measured on.
    runs = {
        (seed, kind): train(arguments, teacher, student, seed, kind)
        for seed in arguments.seeds
        for kind in ("same", "int8")
    }
    first = RunDirectory.open(runs[arguments.seeds[0], "same"])
    measure_teacher(arguments, first)
    for seed in arguments.seeds:
        compare_students(arguments, seed, *(RunDirectory.open(runs[seed, kind]) for kind in ("same", "int8")))


def train(arguments: argparse.Namespace, teacher: Path, student: Path, seed: int, kind: str) -> Path:
    result = distill_models(
        teacher_model_path=str(teacher), student_model_path=str(student), dataset_path=str(arguments.texts),
        sample_size=arguments.examples, held_out_size=arguments.held_out, max_length=arguments.length, epochs=2, seed=seed,
        temperature=1.0, alpha=0.5, learning_rate=1e-4, batch_size=8, teacher_cache="exact", teacher_precision=kind,
        skip_validation=True, save_plot=False, checkpoint_interval=1000, allow_out_of_range=True, no_cuda=True,
        output_dir=str(arguments.work / "int8"), folder_name=f"{kind}-{seed}-{time.time_ns()}", install_deps=False,
    )  # fmt: skip
    emit(arguments.results, {"what": "run", "seed": seed, "teacher": kind, "teacher_pass": result.metrics["teacher_pass"],
                     "validation_bits_per_byte": result.metrics["best"]["bits_per_byte"]})  # fmt: skip
    return result.run_directory


def measure_teacher(arguments: argparse.Namespace, run: RunDirectory) -> None:
    """Speed of the pass and bits per byte, both formats in turn."""
    config = Parameters(**run.manifest.config)
    compute, console = choose_compute(config), Console(quiet=True)
    pair = open_pair(config, run, console)
    encoders = pair.text_encoders(config)
    texts = [row["student_ids"] for row in load_examples(run.data / "train").to_list()]
    test = load_examples(run.data / "test").to_list()
    teachers = {kind: LiveTeacher(pair.load_teacher(compute.teacher, console), compute) for kind in ("same", "int8")}
    quantise_layers(decoder_blocks(teachers["int8"].model)[2])
    speeds: dict[str, list[float]] = {kind: [] for kind in teachers}
    for _ in range(arguments.rounds):
        for kind, teacher in teachers.items():
            speeds[kind].append(tokens_per_second(teacher, texts))
    scores = {kind: score_of(teacher.model, test, encoders, "teacher", None) for kind, teacher in teachers.items()}
    for kind, found in scores.items():
        emit(arguments.results, {
            "what": "teacher", "format": kind if kind == "int8" else str(compute.teacher).removeprefix("torch."),
            "tokens_per_second": round(max(speeds[kind]), 1), "all": [round(value, 1) for value in speeds[kind]],
            "bits_per_byte": round(found.bits_per_byte, 5),
        })  # fmt: skip
    ratio = max(speeds["int8"]) / max(speeds["same"])
    emit(arguments.results, {"what": "teacher", "speed_ratio": round(ratio, 3), **cost(scores["same"], scores["int8"])})


def compare_students(arguments: argparse.Namespace, seed: int, whole: RunDirectory, coarse: RunDirectory) -> None:
    config, console = Parameters(**whole.manifest.config), Console(quiet=True)
    compute = choose_compute(config)
    pair = open_pair(config, whole, console)
    encoders, test = pair.text_encoders(config), load_examples(whole.data / "test").to_list()
    scores = [
        score_of(pair.load_trained_student(run.best_student, console), test, encoders, "student", compute.autocast)
        for run in (whole, coarse)
    ]
    emit(arguments.results, {
        "what": "student", "seed": seed, "same": round(scores[0].bits_per_byte, 5), "int8": round(scores[1].bits_per_byte, 5),
        **cost(*scores),
    })  # fmt: skip


def tokens_per_second(teacher: LiveTeacher, texts: list[list[int]]) -> float:
    """Batches of about 2048 tokens, as the teacher pass has them; the first is read once more beforehand."""
    ordered = sorted(texts, key=len, reverse=True)
    size = max(1, 2048 // len(ordered[0]))
    batches = [ordered[begin : begin + size] for begin in range(0, len(ordered), size)][:16]
    before = (0, 0.0)
    for number, batch in enumerate([batches[0], *batches]):
        if number == 1:
            before = teacher.tokens, teacher.seconds
        ids = pad_right(batch, 0)
        teacher.hidden({"teacher_input_ids": ids, "teacher_attention_mask": attention_mask(batch, ids.shape[1])})
    return (teacher.tokens - before[0]) / (teacher.seconds - before[1])


def score_of(model: nn.Module, test: list[dict[str, Any]], encoders: Any, side: Any, autocast: Any) -> Scores:
    encoder = encoders.teacher if side == "teacher" else encoders.student
    return score(model, scored_texts(test, encoder, side), device=torch.device("cpu"), autocast_dtype=autocast)


def cost(whole: Scores, coarse: Scores) -> dict[str, Any]:
    """Bits per byte that int8 adds, with the 95 % interval over documents."""
    found = paired_bootstrap(coarse, whole, seed=0)
    low, high = found.low, found.high
    return {
        "cost": round(found.estimate, 5),
        "ci95": None if low is None or high is None else [round(low, 5), round(high, 5)],
    }


def machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0]}, {len(names)} cores, python {platform.python_version()}"


if __name__ == "__main__":
    main()
