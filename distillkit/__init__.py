"""distillkit: distil a large causal language model into a small one.

from distillkit import distill_models
result = distill_models(teacher_model="gpt2-xl", student_model="distilgpt2", preset="weak-pc")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "DistillResult",
    "DistillkitError",
    "Interrupted",
    "PreconditionError",
    "QualityGateError",
    "UsageError",
    "__version__",
    "distill_models",
]

if TYPE_CHECKING:
    from distillkit.api import distill_models
    from distillkit.errors import DistillkitError, Interrupted, PreconditionError, QualityGateError, UsageError
    from distillkit.run.results import DistillResult


def __getattr__(name: str) -> Any:
    # Loaded on first use: `distillkit --help` must not pay for what it does not need.
    if name == "distill_models":
        from distillkit.api import distill_models

        return distill_models
    if name == "DistillResult":
        from distillkit.run.results import DistillResult

        return DistillResult
    if name in __all__:
        from distillkit import errors

        return getattr(errors, name)
    raise AttributeError(f"module 'distillkit' has no attribute {name!r}")
