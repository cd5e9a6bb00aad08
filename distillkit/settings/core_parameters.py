"""The 26 parameters that `distill_models()` promises; `parameters.py` adds the advanced ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distillkit.settings import conditions
from distillkit.settings.facts import POSITIVE, SHARE, at_least, parameter

BoxType = Literal["white", "black"]


@dataclass(frozen=True, kw_only=True)
class CoreParameters:
    """Names, defaults and ranges do not change."""

    teacher_model: str = parameter(
        "gpt2-xl",
        "models",
        affects="prepare-data",
        takes_path=True,
        replaced_by="teacher_model_path",
        examples=("gpt2-xl", "gpt2-medium", "gpt2", "Qwen/Qwen-1_8B", "microsoft/DialoGPT-large"),
    )
    student_model: str = parameter(
        "arnir0/Tiny-LLM",
        "models",
        affects="prepare-data",
        takes_path=True,
        replaced_by="student_model_path",
        examples=("arnir0/Tiny-LLM", "distilgpt2", "gpt2", "gpt2-medium", "teacher:6"),
    )
    box_type: BoxType = parameter("white", "models", affects="prepare-data")
    teacher_model_path: str | None = parameter(
        None, "models", affects="prepare-data", takes_path=True, examples=("./models/gpt2-xl",)
    )
    student_model_path: str | None = parameter(
        None, "models", affects="prepare-data", takes_path=True, examples=("./models/tiny-llm",)
    )

    dataset: str = parameter(
        "wikitext",
        "data",
        affects="prepare-data",
        takes_path=True,
        replaced_by="dataset_path",
        examples=("wikitext", "pokemon", "python-docs", "./texts.jsonl"),
    )
    dataset_path: str | None = parameter(
        None, "data", affects="prepare-data", takes_path=True, examples=("./texts.txt",)
    )
    sample_size: int = parameter(
        1000, "data", low=100, high=50_000, possible=at_least(1), affects="prepare-data", examples=("500", "5000")
    )
    max_length: int = parameter(
        256, "data", low=64, high=4096, possible=at_least(8), affects="prepare-data", examples=("128", "512")
    )

    temperature: float = parameter(
        2.0,
        "distillation",
        low=1.0,
        high=10.0,
        possible=POSITIVE,
        affects="distill",
        used_by=conditions.SOFTENED,
        examples=("1.0", "3.0"),
    )
    alpha: float = parameter(
        0.7,
        "distillation",
        low=0.0,
        high=1.0,
        possible=SHARE,
        complement="beta",
        affects="distill",
        examples=("0.5", "0.9"),
    )
    beta: float = parameter(
        0.3,
        "distillation",
        low=0.0,
        high=1.0,
        possible=SHARE,
        complement="alpha",
        affects="distill",
        examples=("0.5", "0.1"),
    )

    epochs: int = parameter(
        2, "training", low=1, high=20, possible=at_least(1), affects="distill", may_grow=True, examples=("1", "5")
    )
    batch_size: int = parameter(
        8, "training", low=1, high=128, possible=at_least(1), affects="distill", examples=("2", "32")
    )
    learning_rate: float = parameter(
        5e-5, "training", low=1e-6, high=1e-3, possible=POSITIVE, affects="distill", examples=("1e-4", "4e-4")
    )
    no_cuda: bool = parameter(False, "training", affects="distill", opposite_flag="--cuda")

    output_dir: str = parameter(
        "./output", "output", location="directory", takes_path=True, examples=("./experiments",)
    )
    folder_name: str | None = parameter(None, "output", location="folder", examples=("gpt2_to_tiny_experiment_1",))
    checkpoint_interval: int = parameter(
        50, "output", low=1, high=1000, possible=at_least(1), affects="distill", examples=("25", "200")
    )
    save_metrics: bool = parameter(True, "output")
    save_plot: bool = parameter(True, "output")
    save_best_model: bool = parameter(True, "output", affects="distill")

    skip_validation: bool = parameter(False, "extras")
    install_deps: bool = parameter(True, "extras")
    run_tests: bool = parameter(False, "extras")
    skip_demo: bool = parameter(True, "extras")
