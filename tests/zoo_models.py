"""The zoo: a tiny model with random weights of every causal language model that transformers knows."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 64
LAYERS = 4
CONTEXT = 96
_LARGEST = 3_000_000

# What it is called differs; whatever a configuration has of these is made small.
_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "n_embd": 32, "d_model": 32, "dim": 32, "embedding_size": 32,
    "intermediate_size": 48, "intermediate_size_mlp": 48, "ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_ffn_dim": 48, "n_inner": 48, "dff": 48, "dim_ff": 48,
    "num_hidden_layers": LAYERS, "n_layer": LAYERS, "n_layers": LAYERS, "num_layers": LAYERS, "decoder_layers": LAYERS,
    "encoder_layers": 1,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "decoder_attention_heads": 4,
    "encoder_attention_heads": 4, "num_key_value_heads": 2, "num_kv_heads": 2, "head_dim": 8, "dim_head": 8,
    "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8,
    "max_position_embeddings": CONTEXT, "n_positions": CONTEXT, "max_seq_len": CONTEXT,
    "moe_intermediate_size": 16, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "shared_expert_intermediate_size": 16, "shared_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16, "expert_ffn_hidden_size": 16,
    "state_size": 4, "mamba_d_state": 4, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_group": 1,
    "topk_group": 1, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 64,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_head_dim": 8, "attention_hidden_size": 32, "lru_width": 32, "rel_extent": 16,
    # Shorter than the texts that are read, or what a window does would not be seen.
    "sliding_window": 8, "attention_window_size": 8, "attention_chunk_size": 8,
}  # fmt: skip
# Tokens that a model treats apart would make its texts unlike those of others.
_NO_TOKENS: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
_TOKENS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_DECODER: dict[str, Any] = {"is_decoder": True, "pad_token_id": 0}
_NO_HEAD_DIM: dict[str, Any] = {"head_dim": ...}
_MLA: dict[str, Any] = {"head_dim": 4, "num_key_value_heads": 4, "first_k_dense_replace": 1}


def _each(kinds: str, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict.fromkeys(kinds.split(), settings)


# What generic values do not fit. `...` leaves a value as the configuration has it.
SETTINGS: dict[str, dict[str, Any]] = {
    **_each("axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash minicpm3 sarvam_mla youtu",
            {"head_dim": 4, "num_key_value_heads": 4, "first_k_dense_replace": 1}),
    **_each("bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert roberta "
            "roberta-prelayernorm roformer xlm-roberta xlm-roberta-xl", {"is_decoder": True, "pad_token_id": 0}),
    **_each("cwm emu3 mllama modernbert-decoder hunyuan_v1_dense hunyuan_v1_moe", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}),
    **_each("codegen gptj", {"rotary_dim": 4}),
    **_each("inkling2_text inkling2_loop_text", {"unpadded_vocab_size": VOCABULARY, "loop_gate_rank": 4}),
    "xmod": {"is_decoder": True, "pad_token_id": 0, "default_language": "en_XX"},
    "roc_bert": {"is_decoder": True, "pad_token_id": 0, "shape_vocab_size": VOCABULARY, "shape_embed_dim": 8,
                 "pronunciation_vocab_size": VOCABULARY, "pronunciation_embed_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]], "window_size": 8},
    "mamba2": {"num_heads": 8, "n_groups": 1, "chunk_size": 8},
    "falcon_h1": {"mamba_d_ssm": 64},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "zamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_hidden_layers": 6, "attention_hidden_size": ..., "head_dim": ...,
              "use_mamba_kernels": False},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 3, "num_hidden_layers": 6, "head_dim": ...,
               "attention_hidden_size": ..., "n_mamba_heads": 8, "use_mamba_kernels": False, "adapter_rank": 4, "chunk_size": 8},
    "bamba": {"attn_layer_indices": [1, 3]},
    **_each("kimi_linear bailing_hybrid", {"layer_types": ["linear_attention", "full_attention"] * 2, "head_dim": 4,
                                        "num_key_value_heads": 4}),
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2,
                     "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, "laurel_rank": 8, "pad_token_id": 0},
    "gemma4_text": {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8},
}  # fmt: skip


def kinds() -> list[str]:
    """Every architecture that `AutoModelForCausalLM` knows, by its `model_type`."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def zoo_config(kind: str, **more: Any) -> PreTrainedConfig:
    """The configuration of a tiny model.

    Args:
        more: settings of the text model, instead of the zoo's.
    """
    default: Any = AutoConfig.for_model(kind)
    text: Any = type(default.get_text_config(decoder=True))
    known = vars(text()).keys() | text.attribute_map.keys()
    own = SETTINGS.get(kind, {}) | more
    # Where a setting has two names, the one that is given counts.
    known -= {alias for alias, name in text.attribute_map.items() if name in own}
    known -= {text.attribute_map[alias] for alias in own if alias in text.attribute_map}
    values = {name: value for name, value in (_SMALL | _NO_TOKENS).items() if name in known} | own
    return text(**{name: value for name, value in values.items() if value is not ...})


def zoo_model(kind: str, seed: int = 0, **more: Any) -> PreTrainedModel:
    """A tiny model, in evaluation mode and fp32, all its weights drawn so that each of them counts."""
    config = zoo_config(kind, **more)
    with torch.device("meta"):
        size = sum(weights.numel() for weights in AutoModelForCausalLM.from_config(config).parameters())
    if size > _LARGEST:
        raise ValueError(f"{kind}: {size:,} parameters")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for weights in model.parameters():
                if weights.ndim >= 2:
                    weights.copy_(torch.randn(weights.shape) * 0.7 / weights.shape[-1] ** 0.5)
    return model.eval()
