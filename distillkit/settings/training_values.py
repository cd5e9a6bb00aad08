"""Values of the knobs of the training: which trackers there are, what `model_kwargs` may hold."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from distillkit.errors import UsageError

TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")
ROLES = ("teacher", "student")

# What the program itself passes to `from_pretrained`, or relies on, by the parameter that has a say in it ("" where none has).
_SET_BY_THE_PROGRAM = {
    "attn_implementation": "attn_implementation",
    "trust_remote_code": "trust_remote_code",
    "dtype": "precision",
    "torch_dtype": "precision",
    "revision": "student_model",  # OWNER/NAME@REVISION
    "device_map": "teacher_devices",
    **dict.fromkeys(
        (
            "pretrained_model_name_or_path", "config", "state_dict", "cache_dir", "force_download", "local_files_only",
            "use_safetensors", "weights_only", "output_loading_info", "ignore_mismatched_sizes", "from_tf", "from_flax",
            "gguf_file", "subfolder", "variant", "token", "use_auth_token", "proxies", "commit_hash", "code_revision",
            "device", "max_memory", "offload_folder", "offload_buffers", "offload_state_dict",
            "low_cpu_mem_usage", "tp_plan", "tp_size", "device_mesh", "quantization_config", "load_in_8bit", "load_in_4bit",
            "adapter_kwargs", "adapter_name", "key_mapping", "return_dict", "use_return_dict", "torchscript", "use_cache",
            "output_attentions", "output_hidden_states", "architectures", "model_type", "vocab_size", "tie_word_embeddings",
            "auto_map", "_attn_implementation", "experts_implementation",
        ),
        "",
    ),
}  # fmt: skip


def tracker_names(value: str) -> tuple[str, ...]:
    """The trackers that a value of `report_to` names, in their order; () for none."""
    names = [name.strip().lower() for name in value.split(",")]
    return tuple(dict.fromkeys(name for name in names if name and name != "none"))


def check_trackers(value: str, where: str) -> None:
    """Refuse a tracker that is not known.

    Args:
        value: of `report_to`.
        where: where it came from, for the message.

    Raises:
        UsageError: it is not known, or `none` stands beside others.
    """
    names = tracker_names(value)
    for name in names:
        if name not in TRACKERS:
            near = difflib.get_close_matches(name, TRACKERS, n=1)
            raise UsageError(
                f"report_to: {name!r} is none of {', '.join((*TRACKERS, 'none'))} ({where})",
                hint=f"did you mean {near[0]!r}?" if near else "for example --report-to tensorboard",
            )
    if names and "none" in [name.strip().lower() for name in value.split(",")]:
        raise UsageError(f"report_to: none stands beside {names[0]} ({where})", hint="leave one of them out")


def check_model_kwargs(value: Mapping[str, Any], where: str) -> None:
    """Refuse what the program itself passes to `from_pretrained`.

    Args:
        value: of `model_kwargs`.
        where: where it came from, for the message.

    Raises:
        UsageError: an argument is the program's own, or what stands under `teacher` or `student` is no mapping.
    """
    for role in ROLES:
        if role in value and not isinstance(value[role], Mapping):
            raise UsageError(
                f"model_kwargs: what stands under {role!r} is no mapping ({where})",
                hint=f"for example: model_kwargs: {{{role}: {{attention_dropout: 0.1}}}}",
            )
    for name in [*value, *(inner for role in ROLES for inner in value.get(role, ()))]:
        if name not in _SET_BY_THE_PROGRAM:
            continue
        parameter = _SET_BY_THE_PROGRAM[name]
        raise UsageError(
            f"model_kwargs: {name} is set by the program ({where})",
            hint=f"use the parameter {parameter}" if parameter else f"leave {name} out",
        )


def kwargs_for(value: Mapping[str, Any], role: str) -> dict[str, Any]:
    """The arguments for one model: those for both, and those under its role, which win.

    Args:
        value: of `model_kwargs`.
        role: "teacher" or "student".
    """
    both = {name: item for name, item in value.items() if name not in ROLES}
    return both | dict(value.get(role, {}))
