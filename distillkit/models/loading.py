"""From a model folder to a tokenizer and a model, with everything refused that would load random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from distillkit.console import Console
from distillkit.errors import DistillkitError, PreconditionError, UsageError, first_line
from distillkit.models.end_tokens import complete_ends
from distillkit.models.load_options import refused_options
from distillkit.models.located import LocatedModel
from distillkit.models.model_files import quantised_how, read_config
from distillkit.models.plain_folder import plain_folder
from distillkit.models.pruning import keep_layers
from distillkit.models.quantised import convert_the_rest, not_quantised_after_all
from distillkit.models.requirements import missing_library
from distillkit.silence_libraries import silence_transformers


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
        raise missing_library(name, error) from error
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


def load_model(
    located: LocatedModel,
    *,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    console: Console,
    places: dict[str, Any] | None = None,
) -> nn.Module:
    """A causal language model in evaluation mode, on the CPU unless `places` says otherwise.

    Args:
        dtype: of the weights; never "auto", with which a bf16 checkpoint would train bf16 master weights.
        places: the device of each part, as `placement.device_map` makes it.

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
                use_safetensors=True, output_loading_info=True, device_map=places, **located.options,
            )  # fmt: skip
    except ImportError as error:
        if located.options and not quantised_how(located.folder):
            raise refused_options(name, located.options, error) from error
        if how := quantised_how(located.folder):
            raise _not_loaded_quantised(name, how, error) from error
        raise missing_library(name, error) from error
    except ValueError as error:
        if "Unrecognized configuration class" in str(error) or "does not recognize this architecture" in str(error):
            architecture = (read_config(located.folder).get("architectures") or ["its architecture"])[0]
            raise UsageError(
                f"{name} is no causal language model: {architecture}", hint="name another model"
            ) from error
        if how := quantised_how(located.folder):
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
        if how := quantised_how(located.folder):
            raise _not_loaded_quantised(name, how, error) from error
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
    if how := quantised_how(located.folder):
        if problem := not_quantised_after_all(model):
            raise _not_loaded_quantised(name, how, problem)
        convert_the_rest(model, dtype)
    return model.eval()


def _not_loaded_quantised(name: str, how: str, error: Exception | str) -> DistillkitError:
    return PreconditionError(
        f"{name} is quantised ({how}) and cannot be loaded: {error if isinstance(error, str) else first_line(error)}",
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
