"""GGUF models, converted once into a safetensors folder of the cache: taking one apart takes seconds and more."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from distillkit.console import Console
from distillkit.errors import PreconditionError, first_line
from distillkit.models.download_cache import cache_folder, filling
from distillkit.models.references import KNOWN_WHEELS, ModelReference
from distillkit.models.save_errors import plain_save_errors
from distillkit.silence_libraries import silence_gguf_reader, silence_transformers
from distillkit.storage import (
    file_records,
    files_below,
    read_json,
    records_problem,
    sha256_of,
    write_folder,
    write_json,
)

_FORMAT = 1
_COMPLETE = "converted.json"


def converted_folder(gguf: Path, console: Console) -> Path:
    """The folder with the dequantised weights (fp32) and the tokenizer of a GGUF file.

    Raises:
        PreconditionError: the file is no GGUF model that transformers can read.
        DistillkitError: the cache cannot be written.
    """
    folder = _cache_place(sha256_of(gguf))
    with filling(folder, console):
        if not _is_complete(folder):
            _convert(gguf, folder, console)
    return folder


def _convert(gguf: Path, folder: Path, console: Console) -> None:
    with console.progress(f"converting {gguf.name}", unit="steps", total=2) as progress:
        try:
            model, tokenizer = _load(gguf)
        except (ImportError, MemoryError):
            raise
        except Exception as error:
            # The reader raises whatever its parsing stumbles over; for the user it is a file that cannot be read.
            raise PreconditionError(
                f"{gguf} cannot be read as a GGUF model: {first_line(error)}",
                hint="is the file complete, and its architecture known to transformers?",
            ) from error
        progress.advance()

        def fill(target: Path) -> None:
            with silence_transformers(), plain_save_errors(target):
                model.save_pretrained(str(target))
                tokenizer.save_pretrained(str(target))
            write_json(target / _COMPLETE, file_records(target, files_below(target)))

        write_folder(folder, fill)
        progress.advance()


def cached_conversion(reference: ModelReference) -> Path | None:
    """The converted folder of a GGUF or wheel reference if it is in the cache already; nothing is fetched.

    Raises:
        OSError: the GGUF file cannot be read.
    """
    if reference.path is not None:
        digest: str | None = sha256_of(reference.path)
    else:
        known = KNOWN_WHEELS.get(reference.requirement or "")
        digest = known.members.get(reference.member or "") if known else None
    if digest is None:
        return None
    folder = _cache_place(digest)
    return folder if (folder / _COMPLETE).is_file() else None


def _cache_place(digest: str) -> Path:
    return cache_folder() / "gguf" / f"{digest[:32]}-v{_FORMAT}"


def _is_complete(folder: Path) -> bool:
    try:
        records = read_json(folder / _COMPLETE)
        return records_problem(folder, records) is None
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _load(gguf: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with silence_gguf_reader(), _parsed_once():
        model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # Dequantised, it is an ordinary model; left as it is, transformers refuses to save it.
    plain: Any = model
    del plain.config.quantization_config
    plain.hf_quantizer, plain.is_quantized = None, False
    vars(plain).pop("quantization_method", None)
    return model, tokenizer


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """transformers parses the file for the configuration, for the weights and for the tokenizer, and makes the table of all
    tensors' names for each module of the model: once each is enough, and takes half of the time."""
    import gguf

    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    library: Any = gguf
    library.GGUFReader, library.get_tensor_name_map = functools.cache(reader), functools.cache(names)
    try:
        yield
    finally:
        library.GGUFReader, library.get_tensor_name_map = reader, names
