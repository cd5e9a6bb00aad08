"""Every kind of memory that models have: what is written token by token is what the model's plain forward pass says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor
from zoo_models import zoo_model

from distillkit.models.decoding import Decoding
from distillkit.models.decoding_ways import decoding_way, state_name

CPU = torch.device("cpu")
PROMPTS = [[5, 9, 22, 33, 40, 7, 3, 13, 50, 51, 52, 17], [8, 11, 60], [44, 43, 42], [12]]
# (together, mask, state): Mamba takes no mask after its prompt, RWKV's states of two texts get mixed, BART counts positions
# from the first column.
WAYS = {
    "llama": ("any", "always", "cache"),
    "mamba": ("any", "prompt", "cache"),
    "falcon_mamba": ("any", "prompt", "cache"),
    "mamba2": ("any", "always", "cache"),
    "lfm2": ("any", "always", "cache"),
    "recurrent_gemma": ("length", "prompt", "cache"),
    "bart": ("length", "prompt", "cache"),
    "rwkv": ("alone", "prompt", "state"),
    "cpmant": ("length", "always", None),
}


def written(model: Any, prompts: list[list[int]], count: int) -> list[list[int]]:
    texts, found = Decoding(model, prompts, CPU), []
    with torch.inference_mode():
        for _ in range(count):
            chosen = texts.logits().argmax(-1)
            found.append(chosen.tolist())
            texts.append(chosen, torch.ones(len(prompts), dtype=torch.bool))
    return [list(row) for row in zip(*found, strict=True)]


def plainly_written(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def written_by_transformers(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", WAYS)
def test_texts_in_a_batch_are_those_of_generate(kind: str) -> None:
    model = zoo_model(kind)
    way = decoding_way(model, CPU)
    assert (way.together, way.mask, way.state) == WAYS[kind]
    assert (way.words() is None) == way.padded
    found = written(model, PROMPTS, 9)
    assert found == [plainly_written(model, prompt, 9) for prompt in PROMPTS]
    # BART's kind has generate() end every text with a token of its own.
    last = 8 if kind == "bart" else 9
    assert [text[:last] for text in found] == [written_by_transformers(model, prompt, 9)[:last] for prompt in PROMPTS]


def test_a_finished_text_of_its_own_length_is_not_read_on() -> None:
    model: Any = zoo_model("bart")
    reads: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, __, named: reads.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    decoding_way(model, CPU)
    reads.clear()
    texts = Decoding(model, PROMPTS, CPU)
    with torch.inference_mode():
        for step in range(3):
            tokens = texts.logits().argmax(-1)
            texts.append(tokens, torch.tensor([step < 1, True, True, False]))
    # Twelve tokens alone, two texts of three tokens together, and one of a single token, which ends at once.
    assert reads[:3] == [(1, 12), (2, 3), (1, 1)]
    assert sorted(reads[3:]) == [(1, 1), (2, 1), (2, 1)]


def test_a_model_is_tried_once_and_known_ones_never() -> None:
    known, other = tiny_model("llama", 64), zoo_model("mamba")
    reads: list[Any] = []
    for model in (known, other):
        model.register_forward_pre_hook(lambda *_: reads.append(0))
    decoding_way(known, CPU)
    assert not reads
    decoding_way(other, CPU)
    tried = len(reads)
    assert tried
    assert decoding_way(other, CPU) is decoding_way(other, CPU)
    assert len(reads) == tried


def test_out_of_memory_is_no_reason_to_read_otherwise() -> None:
    model: Any = zoo_model("mamba")
    plain = model.forward

    def forward(**values: Any) -> Any:
        if values["use_cache"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(**values)

    model.forward = forward
    with pytest.raises(torch.OutOfMemoryError):
        decoding_way(model, CPU)


def test_the_old_name_of_the_cache_in_code_of_its_own() -> None:
    class Old(torch.nn.Module):
        def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = True) -> None:
            """Nothing is read."""

    assert state_name(Old()) == "past_key_values"
