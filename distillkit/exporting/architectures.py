"""What llama.cpp has to be told of a model, for each architecture that is exported: metadata, names and layouts of tensors.

The names are those of `gguf.TensorNameMap`; metadata and layouts are those of llama.cpp's own conversion, which wants
other things for other models: https://github.com/ggml-org/llama.cpp/tree/master/conversion
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# The activations that llama.cpp computes for these architectures.
_SILU = ("silu", "swish")
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


@dataclass(frozen=True)
class Architecture:
    """How a model of transformers becomes one of llama.cpp.

    Attributes:
        name: llama.cpp's, `general.architecture`.
        obstacle: why a model of this architecture is none that llama.cpp computes, as a clause; None if it is.
        describe: writes the metadata.
        layout: a tensor as llama.cpp wants it, from its name and content in the student.
        left_out: endings of names that are no weights.
    """

    name: str
    obstacle: Callable[[Any], str | None]
    describe: Callable[[Any, Any], None]
    layout: Callable[[str, Tensor, Any], Tensor]
    left_out: tuple[str, ...] = ()


def head_size(config: Any) -> int:
    """Numbers per attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope_factors(config: Any) -> Tensor | None:
    """By what llama.cpp divides each rotation's frequency, [head_size / 2] in fp32; None where it divides by nothing.

    Taken from transformers' own frequencies for the scaling of Llama 3, so that no formula is written twice.
    """
    rope: dict[str, Any] = config.rope_parameters
    if rope["rope_type"] != "llama3":
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0].double()
    exponents = torch.arange(0, head_size(config), 2, dtype=torch.float64) / head_size(config)
    return (float(rope["rope_theta"]) ** -exponents / scaled).float()


# --- Llama, Mistral, Qwen2, Qwen3 -------------------------------------------------------------------------------------


def _describe_decoder(writer: Any, config: Any) -> None:
    import gguf

    context, window = int(config.max_position_embeddings), getattr(config, "sliding_window", None)
    if config.model_type == "mistral" and window is not None:
        # llama.cpp's Llama attends to everything: within the window that is the same.
        context = min(context, int(window))
    size = head_size(config)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(size)
    rope: dict[str, Any] = config.rope_parameters
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _decoder_obstacle(config: Any) -> str | None:
    if config.hidden_act not in _SILU:
        return f"its activation is {config.hidden_act}, and llama.cpp computes silu"
    rope: dict[str, Any] = config.rope_parameters
    if rope["rope_type"] not in ("default", "linear", "llama3"):
        return f"its rotary positions are scaled by {rope['rope_type']!r}, which is not covered"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        return "only a part of each head is rotated"
    if head_size(config) % 2:
        return f"its heads have an odd size ({head_size(config)})"
    return None


def _qwen_obstacle(config: Any) -> str | None:
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "some of its layers attend to a window only, which llama.cpp's Qwen does not"
    across = config.num_attention_heads * head_size(config)
    if config.model_type == "qwen2" and across != config.hidden_size:
        return (
            f"its heads are {across} wide together and its hidden states {config.hidden_size}, and llama.cpp's Qwen2 "
            "knows only models where these are the same (a student of Qwen2 may lose layers and neurons, not heads or "
            "hidden columns)"
        )
    if config.model_type == "qwen3" and getattr(config, "attention_bias", False):
        return "its attention has biases, which llama.cpp's Qwen3 does not"
    return _decoder_obstacle(config)


def _in_pairs(name: str, tensor: Tensor, config: Any) -> Tensor:
    """llama.cpp turns neighbouring numbers of a head, transformers the two halves: rows of queries and keys change places."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _as_it_is(name: str, tensor: Tensor, config: Any) -> Tensor:
    return tensor


# --- GPT-2 ------------------------------------------------------------------------------------------------------------


def _describe_gpt2(writer: Any, config: Any) -> None:
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_vocab_size(config.vocab_size)


def _gpt2_obstacle(config: Any) -> str | None:
    if config.activation_function not in _TANH_GELU:
        return f"its activation is {config.activation_function}, and llama.cpp computes gelu_new"
    if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx:
        return "its attention is scaled otherwise than GPT-2's"
    return "it has cross-attention" if config.add_cross_attention else None


def _turned(name: str, tensor: Tensor, config: Any) -> Tensor:
    """GPT-2's Conv1D keeps its weights as [in, out]."""
    conv = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
    return tensor.t() if conv else tensor


_NO_WEIGHTS = (".rotary_emb.inv_freq",)
_LLAMA = Architecture("llama", _decoder_obstacle, _describe_decoder, _in_pairs, _NO_WEIGHTS)
ARCHITECTURES = {
    "llama": _LLAMA,
    # llama.cpp has no architecture of this name.
    "mistral": _LLAMA,
    "qwen2": Architecture("qwen2", _qwen_obstacle, _describe_decoder, _as_it_is, _NO_WEIGHTS),
    "qwen3": Architecture("qwen3", _qwen_obstacle, _describe_decoder, _as_it_is, _NO_WEIGHTS),
    "gpt2": Architecture("gpt2", _gpt2_obstacle, _describe_gpt2, _turned, (".attn.bias", ".attn.masked_bias")),
}
