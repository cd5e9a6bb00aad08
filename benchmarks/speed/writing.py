"""Writing a token at a time with fp32 weights and bf16 products, the weights converted once against for every token.

    python benchmarks/speed/writing.py --results writing.jsonl

The quickstart's student in shape (14 layers, 576 wide, 952 neurons, 49,152 tokens), random weights. Both take turns in one process on the same
beginnings, after one of each to warm up, and must write the same tokens; seconds are medians of the rounds, the ratio is the median of
the rounds' ratios. Weights in fp32 with fp32 products stand beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from results_file import emit
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from distillkit.evaluation.batched_forward import eval_mode, token_by_token
from distillkit.models.decoding import Decoding, choose_tokens

SHAPES = ((1, 20), (4, 40), (8, 60), (32, 40))  # texts, tokens of their beginnings
NEW = 24
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=952, num_hidden_layers=14, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for texts, length in SHAPES:
        prompts = torch.randint(0, 49152, (texts, length)).tolist()
        seconds: dict[str, list[float]] = {way: [] for way in ("each", "once", "fp32")}
        for number in range(arguments.rounds + 1):
            each, written_each = write(model, prompts, every_token(model))
            once, written_once = write(model, prompts, token_by_token(model, CPU, torch.bfloat16))
            wide, _ = write(model, prompts, token_by_token(model, CPU, None))
            assert written_each == written_once
            if number:
                for way, found in (("each", each), ("once", once), ("fp32", wide)):
                    seconds[way].append(found)
        ratios = [once / each for once, each in zip(seconds["once"], seconds["each"], strict=True)]
        emit(arguments.results, {
            "what": "writing", "texts": texts, "length": length, "new": NEW, "threads": arguments.threads,
            **{f"{way}_seconds": round(statistics.median(found), 4) for way, found in seconds.items()},
            "ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        })  # fmt: skip


@contextlib.contextmanager
def every_token(model: nn.Module) -> Iterator[None]:
    """Inference mode under one autocast, which then keeps nothing of what it converts."""
    with eval_mode(model), torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def write(
    model: nn.Module, prompts: list[list[int]], within: AbstractContextManager[None]
) -> tuple[float, list[list[int]]]:
    """Seconds for `NEW` likeliest tokens of every text, and the tokens."""
    began = time.perf_counter()
    with within:
        text, written = Decoding(model, prompts, CPU), []
        for _ in range(NEW):
            chosen = choose_tokens(text.logits(), 0, 1, None)
            written.append(chosen.tolist())
            text.append(chosen, torch.ones(len(prompts), dtype=torch.bool))
    return time.perf_counter() - began, written


if __name__ == "__main__":
    main()
