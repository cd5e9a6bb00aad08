"""What lies in a student's folder besides its weights: the files of the model that it was made from, as its authors wrote
them, but for what training had to change."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillkit.models.plain_folder import ATTENTION_SETTINGS, OUTPUT_SETTINGS, plain_config, plain_folder
from distillkit.silence_libraries import silence_transformers
from distillkit.storage import read_json

# Weights in any format, what training them left, statements on them, adapters of them, and what is ours.
_NOT_KEPT = (
    "*.safetensors", "*.index.json", "*.bin", "*.pt", "*.pth", "*.pkl", "*.h5", "*.msgpack", "*.onnx*", "*.ot", "*.ckpt*",
    "*.tflite", "*.gguf", "*.ggml", "*.npz", "*.npy", "*.nemo", "*.mlmodel", "adapter_*", "params.json",
    "optimizer*", "scheduler*", "rng_state*", "trainer_state*", "training_args*", "events.out.*", "*_results.json", "*.log",
    "*.jsonl", "*.parquet", "*.arrow", "*.csv", "*.tsv", "*.zip", "*.gz", "*.tar", "*.zst", "*.xz",
    "model.safetensors.*", "openvino_*", "config.json", "README*", "readme*", "converted.json", ".*", "*.tmp", "*.lock",
)  # fmt: skip
# Larger than any tokenizer: not a file that describes a model.
_LARGEST = 200 << 20
_FOLDERS = ("additional_chat_templates",)
# Written by transformers into what it saves: where and how these files were read on this machine.
_OF_THIS_MACHINE = ("is_local", "local_files_only")
# Settings of a loaded model that are no part of it, and those that are told otherwise.
_NOT_OF_THE_MODEL = (
    *OUTPUT_SETTINGS, *ATTENTION_SETTINGS, "use_cache", "_name_or_path", "transformers_version", "architectures", "dtype",
    "torch_dtype", "gradient_checkpointing", "_experts_implementation",
)  # fmt: skip


def kept_files(origin: Path) -> Iterator[Path]:
    """The files of a model folder that go along with a student made from it, relative to it."""
    for path in sorted(origin.iterdir()):
        if path.is_dir():
            if path.name in _FOLDERS:
                yield from (Path(path.name) / inner.name for inner in sorted(path.iterdir()) if inner.is_file())
        elif path.is_file() and path.stat().st_size <= _LARGEST and not any(map(path.match, _NOT_KEPT)):
            yield Path(path.name)


def save_student(target: Path, model: Any, origin: Path, *, trust_remote_code: bool = False) -> None:
    """Write a student as the model that it was made from lies in its folder.

    Args:
        target: an empty folder.
        model: the student.
        origin: the student before training, or the teacher whose layers it has.
        trust_remote_code: whether code in `origin` may run.

    Raises:
        OSError, ValueError: a file cannot be read or written.
    """
    from transformers import GenerationConfig

    # Authors' settings for writing may be such as this transformers refuses to save; their file is copied below.
    own = getattr(model, "generation_config", None)
    with silence_transformers():
        if own is not None:
            model.generation_config = GenerationConfig()
        try:
            model.save_pretrained(str(target))
        finally:
            if own is not None:
                model.generation_config = own
    (target / "generation_config.json").unlink(missing_ok=True)
    copy_kept_files(target, origin)
    saved = read_json(target / "config.json")
    _rewrite(target / "config.json", without_this_machine(student_config(saved, origin, model, trust_remote_code)))


def copy_kept_files(target: Path, origin: Path) -> None:
    """Put the files of a model that go along with a student made from it into the student's folder.

    Raises:
        OSError, ValueError: a file cannot be read or written.
    """
    for name in kept_files(origin):
        (target / name).parent.mkdir(exist_ok=True)
        with (origin / name).open("rb") as source, (target / name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
    if (target / "tokenizer_config.json").is_file():
        _rewrite(target / "tokenizer_config.json", without_this_machine(read_json(target / "tokenizer_config.json")))


def without_this_machine(content: Any) -> Any:
    """A file's content without how and from where it was read here."""
    if not isinstance(content, dict):
        return content
    return {name: value for name, value in content.items() if name not in _OF_THIS_MACHINE and not _is_place(value)}


def _is_place(value: Any) -> bool:
    # os.path: pathlib raises where a name is too long.
    return isinstance(value, str) and os.path.isabs(value) and os.path.exists(value)  # noqa: PTH110, PTH117


def _rewrite(path: Path, content: Any) -> None:
    """Byte for byte as it was where nothing in it has changed."""
    if read_json(path) != content:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def student_config(saved: dict[str, Any], origin: Path, model: Any, trust_remote_code: bool) -> dict[str, Any]:
    """The origin's config.json with the settings in which the student differs from it: the number of its layers, its
    widths, the rows of its embedding, the format of its weights.

    Args:
        saved: config.json as `save_pretrained` has written it.

    Raises:
        OSError, ValueError: a config.json cannot be read.
    """
    from transformers import AutoConfig

    written: dict[str, Any] = read_json(origin / "config.json")
    if (
        "quantization_config" not in saved
    ):  # It was trained by an adapter, and is written as the plain numbers it stands for.
        written.pop("quantization_config", None)
    with silence_transformers(), plain_folder(origin) as folder:
        before = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code, local_files_only=True)
    if before.model_type != model.config.model_type:
        # Of a model that reads pictures too, the part is trained and saved that reads texts.
        part = written.get("text_config")
        kept = part.get("use_cache") if isinstance(part, dict) else None
        return {name: value for name, value in saved.items() if name != "use_cache"} | (
            {} if kept is None else {"use_cache": kept}
        )
    after, aliases = _as_json(model.config), getattr(before, "attribute_map", {})
    _update(written, _as_json(before), after, aliases)
    # What the origin leaves to be derived (Llama's size of a head, from the hidden size) may now be derived otherwise.
    with silence_transformers():
        again = type(model.config).from_dict(plain_config(written))
    derived = {name: value for name, value in after.items() if name not in written}
    _update(written, _as_json(again), derived, aliases)
    set_formats(written, str(next(model.parameters()).dtype).removeprefix("torch."))
    own = type(model).__name__
    if own not in (written.get("architectures") or ()):
        written["architectures"] = [own]
    return written


def _as_json(config: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return content


def _update(written: dict[str, Any], before: dict[str, Any], after: dict[str, Any], aliases: dict[str, str]) -> None:
    for name, value in after.items():
        if name in _NOT_OF_THE_MODEL or (name in before and before[name] == value):
            continue
        inner, part = before.get(name), written.get(name)
        if isinstance(value, dict) and isinstance(inner, dict) and isinstance(part, dict):
            _update(part, inner, value, {})
            continue
        # A name that means the same would otherwise contradict it.
        for alias in [alias for alias, real in aliases.items() if real == name and alias in written]:
            del written[alias]
        written[name] = value


def set_formats(written: dict[str, Any], dtype: str) -> None:
    """Name another format of the weights wherever the content of a config.json names one.

    Args:
        dtype: as torch spells it, without "torch.".
    """
    for name, value in written.items():
        if name in ("dtype", "torch_dtype") and value is not None:
            written[name] = dtype
        elif isinstance(value, dict) and name.endswith("_config"):
            set_formats(value, dtype)
