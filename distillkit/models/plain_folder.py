"""A model folder as it is computed with: without settings that change what `forward` returns, and without adapters.

The settings are the authors' and stay in their config.json, and in the exported student's; but code that reads hidden
states and logits by their names cannot do with tuples, and an attention kernel of their machine is not on this one.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillkit.errors import PreconditionError
from distillkit.storage import read_json

# What `forward` returns besides the logits, and as what; torchscript and use_return_dict turn return_dict off.
OUTPUT_SETTINGS = ("return_dict", "use_return_dict", "output_attentions", "output_hidden_states", "torchscript")
ATTENTION_SETTINGS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
# These come with torch; any other attention needs a library, a device or a format of its own.
_ATTENTION_OF_TORCH = ("eager", "sdpa")
ADAPTER_CONFIG = "adapter_config.json"


def has_adapter(folder: Path) -> bool:
    """Whether an adapter lies beside the weights: with peft installed, transformers would put it on top of them."""
    return (folder / ADAPTER_CONFIG).is_file()


def adapter_alone(name: str, folder: Path) -> PreconditionError:
    """What is said of a model that is an adapter without the weights that it adapts."""
    base: Any = None
    with contextlib.suppress(OSError, ValueError):
        content = read_json(folder / ADAPTER_CONFIG)
        base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    of = f" of {base}" if isinstance(base, str) and base else ""
    return PreconditionError(
        f"{name} is an adapter{of}, without the weights of the model itself",
        hint="merge them first: peft's merge_and_unload(), then save_pretrained(); give that folder",
    )


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """The content of a config.json without what only changes the form of the result or how attention is computed, and
    without what keeps a model from being built although it takes no part in computing."""
    kept = {name: value for name, value in config.items() if not _disturbs(name, value)}
    if pads_beyond(config):
        kept["pad_token_id"] = None
    return {name: plain_config(value) if _is_part(name, value) else value for name, value in kept.items()}


def pads_beyond(config: dict[str, Any]) -> bool:
    """Whether padding has an id that the embedding has no row for, with which transformers cannot build a model."""
    padding, size = config.get("pad_token_id"), config.get("vocab_size")
    return isinstance(padding, int) and isinstance(size, int) and padding >= size


def _is_part(name: str, value: Any) -> bool:
    return isinstance(value, dict) and name.endswith("_config") and not name.startswith("quantization")


def _disturbs(name: str, value: Any) -> bool:
    if name == "quantization_config":
        return not value
    if name in ATTENTION_SETTINGS:
        return value not in _ATTENTION_OF_TORCH
    # What is the default already stays, so that most folders are used as they are.
    return name in OUTPUT_SETTINGS and bool(value) != (name in ("return_dict", "use_return_dict"))


@contextlib.contextmanager
def plain_folder(folder: Path) -> Iterator[Path]:
    """The folder to load a model from: itself, or, where something in it disturbs, a temporary one of links to its files.

    Raises:
        OSError, ValueError: config.json cannot be read.
    """
    config = read_json(folder / "config.json")
    plain = plain_config(config) if isinstance(config, dict) else config
    if plain == config and not has_adapter(folder):
        yield folder
        return
    # Named like the model: transformers names the module of a model's own code after its folder.
    with tempfile.TemporaryDirectory() as place:
        view = Path(place) / folder.resolve().name
        view.mkdir()
        for path in folder.iterdir():
            if path.name != "config.json" and not path.name.startswith("adapter_"):
                (view / path.name).symlink_to(path.resolve(), target_is_directory=path.is_dir())
        (view / "config.json").write_text(json.dumps(plain), encoding="utf-8")
        yield view
