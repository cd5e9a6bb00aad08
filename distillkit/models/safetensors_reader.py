"""Single tensors of a model folder, read by plain reads: nothing is mapped, so memory holds what was asked for and no more.

The layout of a safetensors file: eight bytes with the header's length, the header as JSON, the tensors' bytes.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.errors import PreconditionError

_FORMATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class _Entry:
    path: Path
    begin: int
    bytes: int
    shape: tuple[int, ...]
    format: str


class StoredWeights:
    """The tensors of one model by name.

    Args:
        files: its safetensors files.

    Raises:
        PreconditionError: a header cannot be read.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._entries: dict[str, _Entry] = {}
        for path in files:
            self._entries.update(_header(path))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            KeyError: there is no such tensor.
        """
        return self._entries[name].shape

    def format(self, name: str) -> str:
        """The number format of a tensor, as the file spells it ("F32", "BF16", "I8").

        Raises:
            KeyError: there is no such tensor.
        """
        return self._entries[name].format

    @property
    def numbers(self) -> int:
        """How many numbers all tensors have together."""
        return sum(math.prod(entry.shape) for entry in self._entries.values())

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """A tensor, converted to `dtype`, on the CPU.

        Raises:
            PreconditionError: it is stored in a format that is no plain number, or the file is cut short.
        """
        entry = self._entries[name]
        if entry.format not in _FORMATS:
            raise PreconditionError(
                f"{entry.path}: {name} is stored as {entry.format}, which cannot be read block by block",
                hint="use --teacher-streaming off, or a model in fp32, fp16 or bf16",
            )
        # torch's own memory, aligned as the weights of any other model.
        tensor = torch.empty(entry.shape, dtype=_FORMATS[entry.format])
        view, done = memoryview(tensor.flatten().view(torch.uint8).numpy()), 0  # pyright: ignore[reportArgumentType]
        with entry.path.open("rb", buffering=0) as stream:
            stream.seek(entry.begin)
            while done < len(view) and (count := stream.readinto(view[done:])):
                done += count
        if done < len(view) or done != entry.bytes:
            raise PreconditionError(f"{entry.path} is damaged: {name} is cut short", hint="get the model again")
        return tensor.to(dtype)


def _header(path: Path) -> Iterator[tuple[str, _Entry]]:
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                yield name, _Entry(path, 8 + length + begin, end - begin, tuple(entry["shape"]), str(entry["dtype"]))
    except (OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise PreconditionError(f"{path} is damaged: {error}", hint="get the model again") from error
