"""The files of a model folder: its configuration, its weights, and what is refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from distillkit.errors import PreconditionError, UsageError
from distillkit.models.located import LocatedModel
from distillkit.models.plain_folder import adapter_alone, has_adapter
from distillkit.models.quantised import (
    can_have_adapter,
    check_quantised,
    quantisation,
    quantised_format,
    read_by_transformers,
    refuse_quantised,
)
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.storage import read_json

# transformers calls them causal, but they do not predict a text from its beginning alone (found by tests/zoo).
_NOT_CAUSAL = {
    "xlnet": "lets each token see those that follow",
    "cpmant": "reads a prompt and its padding as one text",
}


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder.

    Raises:
        PreconditionError: it is missing or damaged.
    """
    try:
        content = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise PreconditionError(
            f"{folder / 'config.json'} cannot be read: {error}", hint="get the model again"
        ) from error
    if not isinstance(content, dict):
        raise PreconditionError(f"{folder / 'config.json'} is no JSON object", hint="get the model again")
    return content


def weight_files(folder: Path) -> Iterator[Path]:
    """The files that transformers will read: one, or those that the index names.

    Raises:
        PreconditionError: the index is damaged.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        yield folder / "model.safetensors"
    elif index.is_file():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
            if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
                raise ValueError("it names files that lie elsewhere")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PreconditionError(f"{index} is damaged: {error}", hint="get it again") from error
        yield from (folder / name for name in names)


def _check_weights_file(path: Path, located: LocatedModel) -> None:
    """A missing or truncated file is found by its header, before anything is loaded."""
    # In the Hub's cache the name is a link: as long as what it points to is there, it is not downloaded again.
    again = f"delete {path.resolve()} and run again" if located.reference.kind == "hub" else "get it again"
    if not path.is_file():
        raise PreconditionError(f"{located.reference.text}: {path} is missing", hint=again.replace("delete", "look at"))
    try:
        # As "pt" the whole file would count as memory of this process.
        with safe_open(str(path), framework="np") as weights:
            weights.keys()
    except (SafetensorError, OSError) as error:
        raise PreconditionError(f"{path} is damaged: {error}", hint=again) from error


def check_folder(
    located: LocatedModel, trust_remote_code: bool, role: str, *, adapted: bool = False, cut: bool = False
) -> None:
    """Refuse what is no causal language model, would run code, or cannot be loaded; nothing is loaded.

    Args:
        role: "teacher", "student" or "model".
        adapted: an adapter is trained beside the student's weights.
        cut: a student is made of the teacher's layers.

    Raises:
        PreconditionError: files are missing or damaged or pickled, the weights are quantised in a way that cannot be used here.
        UsageError: it is no causal language model.
    """
    name, folder = located.reference.text, located.folder
    config = read_config(folder)
    if not isinstance(config.get("model_type"), str | None):
        raise PreconditionError(
            f"{folder / 'config.json'} is damaged: its model_type is no name", hint="get the model again"
        )
    own_code = "auto_map" in config or "auto_map" in _tokenizer_config(folder)
    if own_code and not trust_remote_code:
        raise PreconditionError(
            f"{name} brings its own Python code, which would run on this machine: refused",
            hint="read that code first; then --trust-remote-code lets it run",
        )
    if config.get("is_encoder_decoder"):
        raise UsageError(f"{name} is an encoder-decoder model, not a causal language model", hint="name another model")
    if _is_masked_language_model(config):
        raise UsageError(
            f"{name} is an encoder ({config['model_type']}), not a causal language model", hint="name another model"
        )
    if reason := _NOT_CAUSAL.get(str(config.get("model_type"))):
        raise UsageError(
            f"{name} ({config['model_type']}) {reason}, so it is no causal language model of plain texts",
            hint="name another model",
        )
    files = list(weight_files(folder))
    if not files:
        pickles = [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")]
        if pickles:
            raise PreconditionError(
                f"{name} has its weights only as pickle ({pickles[0]}), which can run code when loaded: refused",
                hint="convert it: save it again with save_pretrained(), which writes safetensors",
            )
        if has_adapter(folder):
            raise adapter_alone(name, folder)
        raise PreconditionError(f"{name} has no *.safetensors weights in {folder}", hint="get the model again")
    for path in files:
        _check_weights_file(path, located)
    stored = StoredWeights(files)
    how = quantisation(config, stored)
    if how is not None and role == "student" and not (adapted and can_have_adapter(config)):
        raise refuse_quantised(name, how, student=True)
    if how is not None and cut:
        raise refuse_quantised(name, how, student=False)
    if how is not None:
        check_quantised(name, config, how)
    if not read_by_transformers(config) and (how := quantised_format(stored)):
        raise PreconditionError(
            f"{name} is quantised ({how}), and its config.json names no way of reading it: it would be read wrongly",
            hint="name the unquantised original that it was made from",
        )


def quantised_how(folder: Path) -> str | None:
    """How the weights of a model folder are quantised, in a few words; None where they are plain numbers.

    Raises:
        PreconditionError: config.json is damaged.
    """
    return quantisation(read_config(folder), StoredWeights(list(weight_files(folder))))


def refuse_twice_quantised(teacher: LocatedModel) -> None:
    """For `--teacher-precision int8`.

    Raises:
        PreconditionError: the teacher's weights are quantised already.
    """
    if how := quantised_how(teacher.folder):
        raise PreconditionError(
            f"--teacher-precision int8: the teacher {teacher.reference.text} is quantised already ({how})",
            hint="leave --teacher-precision out",
        )


def _is_masked_language_model(config: dict[str, Any]) -> bool:
    """BERT and its kin: transformers would load them for causal use too, with attention that sees what comes later."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    kind = config.get("model_type")
    return kind in MASKED and not (kind in CAUSAL and config.get("is_decoder"))


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    try:
        content = read_json(folder / "tokenizer_config.json")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PreconditionError(
            f"{folder / 'tokenizer_config.json'} cannot be read: {error}", hint="get the model again"
        ) from error
    return content if isinstance(content, dict) else {}
