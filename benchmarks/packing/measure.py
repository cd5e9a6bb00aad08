"""Whether packing short texts into one row would save anything over batches of like lengths: padding, exactness, processor time.

    python benchmarks/packing/measure.py

A micro-batch is packed into rows as wide as its longest text (first fit, longest first), so that attention never costs more than
with padding; positions begin anew at each text, and transformers makes a block-diagonal mask of them (only without a cache: `use_cache=False`). All texts
in one row have no padding, and attention over all of them. Time is processor time of
one thread, forward and backward, of a Llama with SmolLM2-135M's widths and four layers; it differs by some percent from run to run.
Prints Markdown.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, Qwen2Config

from distillkit.data.batching import LengthGroupedSampler, attention_mask, pad_right

TEXTS = {
    "chat: log-normal, median 120, sigma 1": lambda draw, n: np.clip(draw.lognormal(np.log(120), 1.0, n), 8, 2048),
    "log-normal, median 150, sigma 1.5": lambda draw, n: np.clip(draw.lognormal(np.log(150), 1.5, n), 8, 4096),
    "90 % of 10-60, 10 % of 1500-2048": lambda draw, n: np.where(
        draw.random(n) < 0.9, draw.integers(10, 60, n), draw.integers(1500, 2048, n)
    ),
    "even, 16-512": lambda draw, n: draw.integers(16, 512, n),
}

WAYS = ("padded", "packed", "one row")


def micro_batches(lengths: np.ndarray, size: int, accumulation: int) -> list[np.ndarray]:
    """The lengths of the texts of each micro-batch of an epoch, in the sampler's order."""
    order = list(LengthGroupedSampler(lengths.tolist(), size * accumulation, 1))
    return [lengths[order[begin : begin + size]] for begin in range(0, len(order), size)]


def packed(lengths: np.ndarray, *, one_row: bool = False) -> list[list[int]]:
    """Texts in rows no wider than the longest of them: first fit, longest first; or all of them in one row."""
    if one_row:
        return [list(range(len(lengths)))]
    rows: list[list[int]] = []
    room: list[int] = []
    for index in np.argsort(-lengths, kind="stable").tolist():
        place = next((row for row, left in enumerate(room) if left >= lengths[index]), None)
        if place is None:
            rows.append([])
            room.append(int(lengths.max()))
            place = len(rows) - 1
        rows[place].append(index)
        room[place] -= int(lengths[index])
    return rows


def padding_table() -> None:
    """Padding of all tokens that a model computes."""
    print("| lengths | texts | micro-batch × accumulation | random order | by length (now) | packed |")
    print("|---|---|---|---|---|---|")
    for name, made in TEXTS.items():
        for count, size, accumulation in ((500, 8, 1), (5000, 2, 1), (5000, 8, 1), (5000, 32, 1), (5000, 8, 4)):
            lengths = made(np.random.default_rng(0), count).astype(int)
            batches = micro_batches(lengths, size, accumulation)
            shuffled = np.random.default_rng(1).permutation(lengths)
            random = [shuffled[begin : begin + size] for begin in range(0, count, size)]
            real = int(lengths.sum())
            shares = [
                1 - real / sum(int(batch.max()) * len(batch) for batch in random),
                1 - real / sum(int(batch.max()) * len(batch) for batch in batches),
                1 - real / sum(int(batch.max()) * len(packed(batch)) for batch in batches),
            ]
            print(
                f"| {name} | {count:,} | {size} × {accumulation} | "
                + " | ".join(f"{100 * s:.1f} %" for s in shares)
                + " |"
            )


def losses(model: torch.nn.Module, texts: list[list[int]], way: str) -> torch.Tensor:
    """The sum of the cross-entropies of all tokens but the first of each text."""
    if way == "padded":
        ids = pad_right(texts, 0)
        logits = model(input_ids=ids, attention_mask=attention_mask(texts, ids.shape[1]), use_cache=False).logits
        places = [(row, 0, text) for row, text in enumerate(texts)]
    else:
        lengths = np.array([len(text) for text in texts])
        rows = packed(lengths, one_row=way == "one row")
        ids = torch.zeros(len(rows), max(int(lengths[row].sum()) for row in rows), dtype=torch.long)
        positions = torch.zeros_like(ids)
        places = []
        for row, members in enumerate(rows):
            begin = 0
            for index in members:
                end = begin + len(texts[index])
                ids[row, begin:end] = torch.tensor(texts[index])
                positions[row, begin:end] = torch.arange(end - begin)
                places.append((row, begin, texts[index]))
                begin = end
            # What is left of the row is a text of its own, which nobody reads.
            positions[row, begin:] = torch.arange(ids.shape[1] - begin)
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    total = logits.new_zeros(())
    for row, begin, text in places:
        of_text = logits[row, begin : begin + len(text) - 1]
        total = total + torch.nn.functional.cross_entropy(of_text, torch.tensor(text[1:]), reduction="sum")
    return total


def made(config: PretrainedConfig) -> torch.nn.Module:
    """A model with random weights."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()


def exactness() -> None:
    """The same loss and gradient, packed and not, in fp64."""
    sizes: dict[str, Any] = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama: dict[str, Any] = {"intermediate_size": 48, "num_key_value_heads": 2}
    texts = [torch.randint(0, 97, (length,)).tolist() for length in (40, 21, 12, 7, 5, 3)]
    print(
        "\n| model, packed and in one row | difference of the loss | largest difference of a gradient |\n|---|---|---|"
    )
    for name, config in {
        "Llama": LlamaConfig(**sizes, **llama),
        "Qwen2": Qwen2Config(**sizes, **llama),
        "GPT-2": GPT2Config(
            vocab_size=97,
            bos_token_id=0,
            eos_token_id=0,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        ),
    }.items():
        model = made(config).double()
        found = []
        for way in WAYS:
            model.zero_grad()
            loss = losses(model, texts, way)
            loss.backward()
            found.append((float(loss.detach()), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
        plain, *others = found
        gradient = max(float((a - b).abs().max()) for other in others for a, b in zip(plain[1], other[1], strict=True))
        print(f"| {name} | {max(abs(plain[0] - other[0]) for other in others):.1e} | {gradient:.1e} |")


def times(batches: int = 4) -> None:
    """Processor time of some micro-batches, spread evenly over an epoch."""
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=576, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192,
    )  # fmt: skip
    model = made(config)
    losses(model, [[1] * 64] * 2, "packed").backward()
    print("\n| lengths | padding of these batches | time of packed | time of one row |\n|---|---|---|---|")
    for name, of_lengths in list(TEXTS.items())[:3]:
        lengths = of_lengths(np.random.default_rng(0), 1000).astype(int)
        # The dearest ones would take minutes; their padding is least.
        every = [batch for batch in micro_batches(lengths, 8, 1) if batch.max() * 8 <= 8192]
        chosen = every[:: max(1, len(every) // batches)][:batches]
        spent = dict.fromkeys(WAYS, 0.0)
        for batch in chosen:
            texts = [np.random.default_rng(2).integers(0, 1000, length).tolist() for length in batch]
            for way in WAYS:
                began = time.process_time()
                losses(model, texts, way).backward()
                spent[way] += time.process_time() - began
        waste = 1 - sum(batch.sum() for batch in chosen) / sum(batch.max() * len(batch) for batch in chosen)
        shares = " | ".join(f"{spent[way] / spent['padded']:.2f}" for way in WAYS[1:])
        print(f"| {name} | {100 * waste:.1f} % | {shares} |", flush=True)


if __name__ == "__main__":
    padding_table()
    exactness()
    times()
