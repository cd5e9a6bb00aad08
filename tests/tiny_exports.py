"""Students of every kind that is exported, tiny and with random weights, in folders of their own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer
from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from distillkit.console import Console
from distillkit.exporting.chosen_student import ChosenStudent
from distillkit.models.loading import load_tokenizer
from distillkit.models.locating import locate
from distillkit.models.references import parse_reference

QUIET = Console(quiet=True)
TEXTS = ["The quick brown fox jumps over 17 dogs.", "naïve café → 23\n\n  two", " def f(x):\n\treturn x"]
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


def models(kind: str, vocab: int) -> Any:
    """A tiny model with random weights whose logits differ; narrowed and biased ones too."""
    small: dict[str, Any] = {
        "vocab_size": vocab, "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made: Any = {
            "llama": lambda: tiny_model("llama", vocab, hidden=64),
            "llama, tied": lambda: tiny_model("llama", vocab, hidden=64, tie_word_embeddings=True),
            "llama, biases": lambda: tiny_model("llama", vocab, hidden=64, attention_bias=True, mlp_bias=True),
            "llama, narrowed": lambda: tiny_model("llama", vocab, hidden=40, head_dim=16, intermediate_size=72),
            "llama, llama3 rope": lambda: tiny_model("llama", vocab, hidden=64, rope_parameters=LLAMA3),
            "llama, linear rope": lambda: tiny_model(
                "llama", vocab, hidden=64,
                rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
            ),
            "mistral": lambda: MistralForCausalLM(MistralConfig(**small, head_dim=16, sliding_window=64)),
            "qwen2": lambda: tiny_model("qwen2", vocab, hidden=64),
            "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**small, head_dim=32)),
            "gpt2": lambda: tiny_model("gpt2", vocab, hidden=64),
            "gpt2, narrowed and untied": lambda: tiny_model(
                "gpt2", vocab, hidden=64, n_inner=96, tie_word_embeddings=False
            ),
        }[kind]()  # fmt: skip
        for name, weights in made.named_parameters():
            if weights.ndim == 1:
                # Norms of one and biases of zero would hide what is lost.
                weights.data += torch.randn_like(weights) * 0.2
            elif "embed" in name or "wte" in name or "head" in name:
                weights.data *= 8
            else:
                weights.data *= 3
    return made.eval()


KINDS = (
    "llama", "llama, tied", "llama, biases", "llama, narrowed", "llama, llama3 rope", "llama, linear rope", "mistral", "qwen2",
    "qwen3", "gpt2", "gpt2, narrowed and untied",
)  # fmt: skip


def student_of(folder: Path, model: Any, tokenizer: Any = None) -> tuple[ChosenStudent, Any]:
    """A student in a folder of its own, outside of a run, with a small byte-level tokenizer unless one is given."""
    save_model_folder(folder, model, tokenizer or tiny_tokenizer())
    located = locate(parse_reference(str(folder)), QUIET)
    place = folder.parent / "run"
    run: Any = SimpleNamespace(path=place, exports=place / "export", data=place / "data")
    return ChosenStudent(run, "best", located, load_tokenizer(located), False), model
