"""The pairs of `run.py`: SmolLM2-135M and eight of its layers, and the default pair's shapes with random weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from distillkit.models.pruning import keep_layers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cross_tokenizer"))
from pair import gpt2_folder, sentencepiece_folder, student_folder, teacher_folder


def smollm2(work: Path) -> tuple[Path, Path]:
    """(teacher, its student of 8 layers)."""
    teacher, student = teacher_folder(work / "smollm2"), work / "smollm2-8"
    if not (student / "config.json").exists():
        # Evenly spread, the first and the last among them.
        layers = [round(index * 29 / 7) for index in range(8)]
        model: Any = keep_layers(AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32), layers)
        model.save_pretrained(student)
        AutoTokenizer.from_pretrained(teacher).save_pretrained(student)
    return teacher, student


def default_shapes(work: Path) -> tuple[Path, Path]:
    """(gpt2-xl's shape, Tiny-LLM's shape): random weights, real tokenizers; 3 GB of disk."""
    teacher = work / "gpt2-xl-shape"
    if not (teacher / "config.json").exists():
        gpt2_folder(teacher)
        torch.manual_seed(0)
        config = GPT2Config(n_embd=1600, n_layer=48, n_head=25)
        with torch.device("cpu"):
            torch.set_default_dtype(torch.bfloat16)
            model = GPT2LMHeadModel(config)
            torch.set_default_dtype(torch.float32)
        model.save_pretrained(teacher)
    sentencepiece_folder(work / "sentencepiece")
    return teacher, student_folder(work / "tiny-llm-shape", "tiny-llm", 1, work / "sentencepiece")
