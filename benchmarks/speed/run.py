"""distillkit against TRL's GKDTrainer and plain fine-tuning: same weights, texts, batches and precision, in one run.

    python benchmarks/speed/run.py --texts TEXT --work FOLDER --trl TRL-ENVIRONMENT/bin/python --results results.jsonl

Every contender runs in a process of its own, one after the other, `--rounds` times in turn; its seconds per step are the
median over all rounds, its memory the largest. TRL brings its own versions, hence its own environment; it and plain
fine-tuning train on the very tokens that distillkit prepared, as they are and (`-kept`) with glibc's malloc told to keep
freed memory, which distillkit does by itself. `--only` repeats a part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pairs import default_shapes, smollm2
from results_file import emit
from safetensors import safe_open
from transformers import AutoConfig

from distillkit.data.examples import load_examples

HERE = Path(__file__).resolve().parent
MODES: dict[str, dict[str, Any]] = {
    "off": {"teacher_cache": "off"}, "exact": {"teacher_cache": "exact"}, "sparse": {"teacher_cache": "sparse"},
}  # fmt: skip
# What `distillkit.device.malloc` sets, for the others.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def gemm_peak(dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of a square matrix product, the best of a few."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        _ = left @ right
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def weights_of(folder: Path, *, blocks_only: bool = False) -> int:
    """Parameters; of the blocks alone, embeddings, head and norms of them left out."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118
                shape = stored.get_slice(name).get_shape()
                if not blocks_only or (len(shape) == 2 and (".layers." in name or ".h." in name)):
                    count = 1
                    for number in shape:
                        count *= number
                    total += count
    return total


def forward_flops(folder: Path, length: int) -> float:
    """Of a token's forward pass without the head: matrix products of the blocks, and of attention at `length`."""
    config: Any = AutoConfig.from_pretrained(folder)
    attention = 4 * length * config.hidden_size * config.num_hidden_layers
    return 2 * weights_of(folder, blocks_only=True) + attention


class Bench:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    def once(self, who: str, settings: dict[str, Any]) -> dict[str, Any]:
        kept = who.endswith("-kept")
        who = who.removesuffix("-kept")
        python = str(self.arguments.trl) if who == "trl" else sys.executable
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as stream:
            json.dump({"threads": self.arguments.threads, "warmup": self.arguments.warmup, **settings}, stream)
            stream.flush()
            done = subprocess.run(
                [python, str(HERE / "contender.py"), who, stream.name], capture_output=True, text=True, check=False,
                env=os.environ | (KEPT if kept else {}),
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{who}: {done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def distillkit(
        self, teacher: Path, student: Path, batch: int, length: int, steps: int, **more: Any
    ) -> dict[str, Any]:
        name = "-".join(
            [teacher.name, str(batch), str(length), *(str(value) for value in more.values()), str(time.time_ns())]
        )
        # Each cache has a place of its own, or sparse targets would be made from the exact cache.
        runs = self.arguments.work / "runs" / str(more["teacher_cache"])
        parameters = {
            "teacher_model_path": str(teacher), "student_model_path": str(student), "dataset_path": str(self.arguments.texts),
            "sample_size": steps * batch, "batch_size": batch, "max_length": length, "epochs": 1, "temperature": 1.0,
            "alpha": 0.5, "learning_rate": 1e-4, "checkpoint_interval": 1000, "save_best_model": False, "save_plot": False,
            "skip_validation": True, "skip_demo": True, "precision": "bf16", "no_cuda": True, "compile_loss": "on",
            "held_out_size": 20, "allow_out_of_range": True, "output_dir": str(runs),
            "folder_name": name[-100:], "install_deps": False, **more,
        }  # fmt: skip
        return self.once("distillkit", {"parameters": parameters, "steps": steps})

    def others(
        self, who: str, teacher: Path, student: Path, tokens: Path, batch: int, length: int, steps: int
    ) -> dict[str, Any]:
        return self.once(who, {
            "teacher": str(teacher), "student": str(student), "tokens": str(tokens), "batch": batch, "length": length,
            "steps": steps,
        })  # fmt: skip

    def compare(
        self, pair: str, teacher: Path, student: Path, batch: int, length: int, steps: int, who: list[str]
    ) -> None:
        """All contenders in turn, and a line for each."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in who}
        tokens = self.arguments.work / f"tokens-{pair}-{batch}-{length}.json"
        count = 0
        for _ in range(self.arguments.rounds):
            for name in who:
                if name in MODES:
                    # Another seed of the draws is another sparse cache; hidden states have only one.
                    done = self.distillkit(teacher, student, batch, length, steps, **MODES[name])
                    texts = [
                        row["student_ids"] for row in load_examples(Path(done["figures"]["run"]) / "data" / "train")
                    ]
                    tokens.write_text(json.dumps(texts), encoding="utf-8")
                    count = sum(map(len, texts))
                else:
                    done = self.others(name, teacher, student, tokens, batch, length, steps)
                found[name].append(done)
        models = 2 * weights_of(teacher), 4 * weights_of(student)
        peak = gemm_peak(torch.bfloat16)
        for name, rounds in found.items():
            seconds = statistics.median([value for one in rounds for value in one["seconds"]])
            highest = max(one["peak_bytes"] - one["baseline_bytes"] for one in rounds)
            # The teacher, the student, and the optimizer's two moments.
            needed = (models[0] if name in ("off", "trl", "trl-kept") else 0) + models[1] * 3
            passes = [one["figures"].get("teacher_pass") for one in rounds if one["figures"]]
            line: dict[str, Any] = {
                "pair": pair, "batch": batch, "length": length, "contender": name, "step_seconds": round(seconds, 4),
                "tokens_per_second": round(count / steps / seconds, 1), "steps": steps, "rounds": len(rounds),
                "peak_bytes": highest, "above_models_bytes": highest - needed,
                "warmup_seconds": [round(value, 2) for value in rounds[0]["warmup_seconds"]],
            }  # fmt: skip
            if passes and passes[0] is not None:
                line["teacher_pass"] = passes[0]
                rate = passes[0]["tokens_per_second"] * forward_flops(teacher, length)
                line["teacher_utilisation"] = round(rate / peak, 3)
                line["gemm_peak"] = round(peak / 1e9, 1)
            emit(self.arguments.results, line)


def machine() -> dict[str, Any]:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {"machine": names[0], "cores": len(names), "torch": torch.__version__, "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--trl", type=Path, help="python of an environment with trl==1.16.0; left out without it")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", choices=("main", "long", "curve", "default"), default=None)
    arguments = parser.parse_args()
    bench = Bench(arguments)
    emit(arguments.results, machine())
    parts = arguments.only or ["main", "long", "curve", "default"]
    theirs = ["trl", "trl-kept"] if arguments.trl else []
    everyone = ["off", *theirs, "exact", "sparse", "finetune", "finetune-kept"]
    if set(parts) & {"main", "long", "curve"}:
        pair = smollm2(arguments.work)
        if "main" in parts:
            bench.compare("smollm2-8", *pair, 4, 128, arguments.steps, everyone)
        if "long" in parts:
            bench.compare("smollm2-8", *pair, 8, 256, max(6, arguments.warmup + 2), everyone)
        if "curve" in parts:
            for batch, length in ((1, 128), (8, 128), (2, 256)):
                bench.compare(
                    "smollm2-8", *pair, batch, length, arguments.warmup + 4, ["off", *theirs[:1], "exact", "sparse"]
                )
    if "default" in parts:
        bench.compare(
            "default shapes",
            *default_shapes(arguments.work),
            4,
            128,
            arguments.warmup + 4,
            ["off", "exact", "sparse", "finetune"],
        )


if __name__ == "__main__":
    main()
