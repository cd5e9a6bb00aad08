"""The optional libraries that a model needs besides those that come with the package."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from distillkit.errors import DistillkitError, PreconditionError, first_line
from distillkit.models.references import ModelReference

PEFT = "peft>=0.21"
GGUF = "gguf>=0.17"
SENTENCEPIECE = ("sentencepiece>=0.2", "protobuf>=4.25")
TIKTOKEN = "tiktoken>=0.8"


def required_libraries(reference: ModelReference) -> list[str]:
    """Requirements that can be told from the reference and local files alone.

    Raises:
        OSError: the folder cannot be read.
    """
    if reference.kind in ("gguf", "wheel"):
        return [GGUF]
    if reference.kind == "adapter":
        return [PEFT]
    if reference.kind == "folder" and reference.path is not None:
        return libraries_for_files(path.name for path in reference.path.iterdir())
    return []


def libraries_for_files(names: Iterable[str]) -> list[str]:
    """Requirements of the tokenizer files of a model folder."""
    files = set(names)
    needed: list[str] = []
    if "tokenizer.json" not in files and any(Path(name).suffix in (".model", ".spm") for name in files):
        needed += SENTENCEPIECE
    if any(name.endswith(".tiktoken") for name in files):
        needed.append(TIKTOKEN)
    return needed


def missing_library(name: str, error: ImportError, *, extra: str = "all") -> DistillkitError:
    """What is said of a model that needs what is not installed.

    Args:
        extra: of this package, that has it.
    """
    return PreconditionError(
        f"{name} needs a library that is not installed: {first_line(error)}",
        hint="pip install 'distillkit[all]' has the optional ones"
        if extra == "all"
        else f"pip install 'distillkit[{extra}]'",
    )
