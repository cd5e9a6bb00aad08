"""A student's forward and backward pass with attention in fp32, as it is trained on a processor, against torch's in bf16.

    python benchmarks/speed/attention.py --results attention.jsonl

The quickstart's student in shape (14 layers, 576 wide, 9 heads of 64 in 3 groups), random weights, without its head. Both take turns in one
process on the same tokens, after one of each to warm up; seconds are medians of the rounds, the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from results_file import emit
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from distillkit.models.training_attention import quick_attention

SHAPES = ((4, 64), (4, 96), (4, 128), (8, 128), (4, 256), (2, 512), (1, 1024), (1, 2048))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=576, intermediate_size=952, num_hidden_layers=14, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048,
    )  # fmt: skip
    backbone = LlamaForCausalLM(config).model.train()
    ways = ("bf16", "fp32")
    for texts, length in SHAPES:
        ids = torch.randint(0, 64, (texts, length))
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(arguments.rounds + 1):
            for way in ways:
                with quick_attention() if way == "fp32" else nullcontext():
                    found = step(backbone, ids)
                if number:
                    seconds[way].append(found)
        ratios = [wide / half for wide, half in zip(seconds["fp32"], seconds["bf16"], strict=True)]
        emit(arguments.results, {
            "what": "attention", "texts": texts, "length": length, "threads": arguments.threads,
            **{f"{way}_seconds": round(statistics.median(found), 4) for way, found in seconds.items()},
            "ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        })  # fmt: skip


def step(backbone: nn.Module, ids_BT: torch.Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = backbone(input_ids=ids_BT, use_cache=False).last_hidden_state
    hidden.float().sum().backward()
    taken = time.perf_counter() - began
    backbone.zero_grad(set_to_none=True)
    return taken


if __name__ == "__main__":
    main()
