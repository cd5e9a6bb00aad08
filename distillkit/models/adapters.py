"""Folders with an adapter: which model it is for, and the model that both make together.

An adapter is a few matrices beside the weights of another model, its base (peft: adapter_config.json and
adapter_model.safetensors). Everything here works with whole models, so an adapter is added to the weights of its base once:
in memory for a student of a run, into a folder of the cache for a teacher or a student's start.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from distillkit.console import Console
from distillkit.errors import PreconditionError, UsageError, first_line
from distillkit.models.download_cache import cache_folder, filling
from distillkit.models.loading import load_model
from distillkit.models.located import LocatedModel
from distillkit.models.lora import ADAPTER_WEIGHTS
from distillkit.models.plain_folder import ADAPTER_CONFIG
from distillkit.models.references import ModelReference, parse_reference
from distillkit.models.requirements import PEFT, missing_library
from distillkit.models.save_errors import plain_save_errors
from distillkit.models.student_files import copy_kept_files, save_student
from distillkit.silence_libraries import silence_transformers
from distillkit.storage import (
    file_records,
    files_below,
    fingerprint_of,
    read_json,
    records_problem,
    sha256_of,
    write_folder,
    write_json,
)

# In an adapter's folder: the model that it is for, where that is nowhere else.
BASE = "base"
_FORMAT = 1
_COMPLETE = "converted.json"


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter.

    Attributes:
        folder: holds it.
        base: the model that it is for.
    """

    folder: Path
    base: ModelReference

    @property
    def name(self) -> str:
        return str(self.folder)

    def place(self, base: LocatedModel) -> Path:
        """The folder of the cache in which both lie merged.

        Raises:
            OSError: a file cannot be read.
        """
        parts = [sha256_of(self.folder / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
        own = [[path.name, sha256_of(path)] for path in sorted(self.folder.glob("*token*")) if path.is_file()]
        return cache_folder() / "adapters" / f"{fingerprint_of([parts, own, base.fingerprint()])[:32]}-v{_FORMAT}"


def read_adapter(folder: Path) -> AdapterFolder:
    """The adapter in a folder.

    Its base is the folder `base` beside it, else what adapter_config.json names: a folder, also one relative to the
    adapter's, or a repository of the Hub.

    Raises:
        PreconditionError: its files are damaged or missing, or pickled; it names no base.
        UsageError: it is of a kind that cannot be added to weights.
    """
    config = _read_config(folder)
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        pickles = sorted(path.name for path in folder.glob("adapter_model.*"))
        if pickles:
            raise PreconditionError(
                f"{folder} has its adapter only as pickle ({pickles[0]}), which can run code when loaded: refused",
                hint="save it again with save_pretrained(), which writes safetensors",
            )
        raise PreconditionError(f"{folder} has no {ADAPTER_WEIGHTS}", hint="get the adapter again")
    try:
        with safe_open(str(weights), framework="np") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        raise PreconditionError(f"{weights} is damaged: {error}", hint="get it again") from error
    return AdapterFolder(folder, _base(folder, config))


def _read_config(folder: Path) -> dict[str, Any]:
    place = folder / ADAPTER_CONFIG
    try:
        content = read_json(place)
    except (OSError, ValueError) as error:
        raise PreconditionError(f"{place} cannot be read: {error}", hint="get the adapter again") from error
    if not isinstance(content, dict):
        raise PreconditionError(f"{place} is no JSON object", hint="get the adapter again")
    return content


def _base(folder: Path, config: dict[str, Any]) -> ModelReference:
    if (folder / BASE / "config.json").is_file():
        return parse_reference(str(folder / BASE))
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(named, str) or not named.strip():
        raise PreconditionError(
            f"{folder / ADAPTER_CONFIG} does not say which model the adapter is for",
            hint=f'put it there as base_model_name_or_path, or put the model into a folder "{BASE}" beside it',
        )
    beside = folder / named
    try:
        if not named.startswith("/") and (beside / "config.json").is_file():
            return parse_reference(str(beside))
        at = f"@{revision}" if isinstance(revision, str) and revision and "@" not in named else ""
        return parse_reference(named if Path(named).is_dir() else named + at)
    except UsageError as error:
        raise PreconditionError(
            f"{folder} is an adapter of {named}, which is not there: {error.message}",
            hint=f'put that model into a folder "{BASE}" beside the adapter, or correct base_model_name_or_path in '
            f"{ADAPTER_CONFIG}",
        ) from error


def merged_model(
    adapter: AdapterFolder, base: LocatedModel, *, dtype: torch.dtype, trust_remote_code: bool, console: Console
) -> nn.Module:
    """The whole model, in evaluation mode, on the CPU: the weights of the base with the adapter added in fp32.

    Args:
        base: of which `adapter.base` is the reference.
        dtype: of the result.

    Raises:
        PreconditionError: peft is missing; the adapter does not fit the base; the base as `load_model`.
        UsageError: the adapter is of a kind that cannot be added to weights; the base as `load_model`.
    """
    try:
        import peft
        from peft.config import PeftConfigMixin
    except ImportError as error:
        raise missing_library(adapter.name, error, extra="adapters") from error
    try:
        config: Any = PeftConfigMixin.from_pretrained(str(adapter.folder))
        described = str(getattr(config.peft_type, "value", config.peft_type))
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise PreconditionError(
            f"{adapter.folder / ADAPTER_CONFIG} is no adapter that this peft knows: {first_line(error)}",
            hint=f"pip install -U '{PEFT}'",
        ) from error
    if config.is_prompt_learning or getattr(config, "is_adaption_prompt", False):
        raise UsageError(
            f"{adapter.name} is an adapter of the kind {described}, which cannot be added to the weights of a model",
            hint="name a model, or an adapter such as LoRA",
        )
    model: Any = load_model(base, dtype=torch.float32, trust_remote_code=trust_remote_code, console=console)
    try:
        # peft draws the adapter's weights before it reads them: no training may notice that one was read.
        with silence_transformers(), torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            wrapped: Any = peft.PeftModel.from_pretrained(
                model, str(adapter.folder), config=config, torch_device="cpu", local_files_only=True
            )
            whole = wrapped.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, OSError, ImportError) as error:
        raise PreconditionError(
            f"the adapter {adapter.name} cannot be added to {adapter.base.text}: {_reason(error)}",
            hint="was it made for that model?",
        ) from error
    missing = [str(warning.message) for warning in said if "missing adapter keys" in str(warning.message)]
    if missing:
        raise PreconditionError(
            f"the adapter {adapter.name} lacks weights for {adapter.base.text}: {missing[0].splitlines()[0][:200]}",
            hint="was it made for that model?",
        )
    return whole.to(dtype).eval()


def _reason(error: Exception) -> str:
    """The first line that says something: torch puts a heading in front of what does not fit."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if not line.endswith(":")), None)
    return told or type(error).__name__


def merged_folder(adapter: AdapterFolder, base: LocatedModel, console: Console, *, trust_remote_code: bool) -> Path:
    """A folder of the cache with the whole model in fp32, and the files of the base; those of a tokenizer are the adapter's
    where it has its own.

    Raises:
        PreconditionError, UsageError: as `merged_model`.
        DistillkitError: the cache cannot be written.
    """
    folder = adapter.place(base)

    def fill(target: Path) -> None:
        model = merged_model(adapter, base, dtype=torch.float32, trust_remote_code=trust_remote_code, console=console)
        with plain_save_errors(target):
            save_student(target, model, base.folder, trust_remote_code=trust_remote_code)
            copy_kept_files(target, adapter.folder)
            if (base.folder / "README.md").is_file():  # It tells the licence.
                (target / "README.md").write_bytes((base.folder / "README.md").read_bytes())
        write_json(target / _COMPLETE, file_records(target, files_below(target)))

    with filling(folder, console):
        if not _is_complete(folder):
            console.info(f"{adapter.name}: an adapter of {adapter.base.text}, added to its weights")
            write_folder(folder, fill)
    return folder


def _is_complete(folder: Path) -> bool:
    try:
        return records_problem(folder, read_json(folder / _COMPLETE)) is None
    except (OSError, ValueError, KeyError, TypeError):
        return False
