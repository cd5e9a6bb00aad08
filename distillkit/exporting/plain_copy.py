"""A student as a folder of its own for plain transformers, its weights converted to another number format if asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.console import Console
from distillkit.errors import PreconditionError
from distillkit.exporting.chosen_student import CARD, ChosenStudent
from distillkit.exporting.number_formats import SAFETENSORS_FORMATS
from distillkit.interrupts import check_interrupted
from distillkit.models.model_files import weight_files
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.models.student_files import set_formats
from distillkit.reports.adapter_card import merged_card
from distillkit.storage import files_below, read_json

_TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_BLOCK_BYTES = 1 << 24
# In the cache an adapter and its base lie merged beside a record of the files, with the card of the base.
_OF_THE_CACHE = (CARD, "converted.json")


def bytes_of_copy(student: ChosenStudent, dtype: str | None) -> int:
    """About how many bytes the copy takes."""
    files = list(weight_files(student.folder))
    if dtype is None:
        return sum(path.stat().st_size for path in files)
    return StoredWeights(files).numbers * _TORCH[dtype].itemsize


def copy_student(target: Path, student: ChosenStudent, dtype: str | None, console: Console) -> None:
    """Fill an empty folder.

    Args:
        dtype: a name in `SAFETENSORS_FORMATS`; None: the weights as they are.

    Raises:
        OSError: a file cannot be read or written.
        PreconditionError: a weight is no plain number, or does not fit into the format.
        Interrupted: a signal arrived.
    """
    weights = set(weight_files(student.folder))
    with console.progress("copying", total=bytes_of_copy(student, dtype) / 1e6, unit="MB") as progress:
        for path in files_below(student.folder):
            if student.is_adapter and path.name in _OF_THE_CACHE:
                continue
            place = target / path.relative_to(student.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path in weights and dtype is not None:
                for done in _convert(path, place, dtype):
                    progress.advance(done / 1e6)
                continue
            with path.open("rb") as source, place.open("wb") as copy:
                while block := source.read(_BLOCK_BYTES):
                    check_interrupted()
                    copy.write(block)
                    if path in weights:
                        progress.advance(len(block) / 1e6)
            shutil.copymode(path, place)
    if student.is_adapter:
        card = merged_card((student.written / CARD).read_text(encoding="utf-8"))
        (target / CARD).write_text(card, encoding="utf-8")
    if dtype is not None:
        _say_format(target, str(_TORCH[dtype]).removeprefix("torch."))


def _convert(path: Path, target: Path, dtype: str) -> Iterator[int]:
    """Write a safetensors file with every tensor in another format; yields the bytes of each.

    The layout is that which `distillkit.models.safetensors_reader` reads: length of the header, header, tensors.
    """
    stored, form, offset = StoredWeights([path]), _TORCH[dtype], 0
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name in stored:
        if stored.format(name) not in ("F64", "F32", "F16", "BF16"):
            raise PreconditionError(
                f"{path}: {name} is stored as {stored.format(name)}, which is not converted", hint="leave out --dtype"
            )
        shape = list(stored.shape(name))
        size = form.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": SAFETENSORS_FORMATS[dtype], "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in stored:
            check_interrupted()
            tensor = _fitting(name, stored.read(name, torch.float32), form)
            stream.write(memoryview(tensor.flatten().view(torch.uint8).numpy()))  # pyright: ignore[reportArgumentType]
            yield tensor.numel() * tensor.element_size()


def _fitting(name: str, tensor: Tensor, form: torch.dtype) -> Tensor:
    if tensor.abs().max().item() > torch.finfo(form).max if tensor.numel() else False:
        raise PreconditionError(f"{name} has weights beyond what fp16 holds (65504)", hint="use --dtype bf16 or f32")
    return tensor.to(form).contiguous()


def _say_format(folder: Path, dtype: str) -> None:
    """Put the new format into config.json, and the new sizes into the index of a model in several files."""
    config = read_json(folder / "config.json")
    if not {"dtype", "torch_dtype"} & config.keys():
        config["dtype"] = dtype
    set_formats(config, dtype)
    _rewrite(folder / "config.json", config)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = read_json(index)
        stored = StoredWeights([folder / name for name in sorted(set(content["weight_map"].values()))])
        content.setdefault("metadata", {})["total_size"] = stored.numbers * getattr(torch, dtype).itemsize
        _rewrite(index, content)


def _rewrite(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
