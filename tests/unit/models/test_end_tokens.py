"""Start and end tokens from a model's configuration, where its tokenizer names none."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizer_makers import byte_level

from distillkit.console import Console
from distillkit.models.loading import load_tokenizer
from distillkit.models.located import LocatedModel
from distillkit.models.references import parse_reference


def folder(
    tmp_path: Path, config: dict[str, Any], generation: dict[str, Any] | None = None, own: dict[str, Any] | None = None
) -> Path:
    """tokenizer.json with `<|endoftext|>` (id 0) and `<s>` (id 1); `own` is its tokenizer_config.json."""
    byte_level(("<|endoftext|>", "<s>")).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    if own is not None:
        content = {"tokenizer_class": "PreTrainedTokenizerFast", **own}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(content))
    return tmp_path


def ends(path: Path, said: list[str] | None = None) -> tuple[str | None, str | None]:
    stream = io.StringIO()
    located = LocatedModel(parse_reference(str(path)), path)
    tokenizer = load_tokenizer(located, console=Console(err=stream))
    if said is not None:
        said.append(" ".join(stream.getvalue().split()))
    assert tokenizer("<s>the", add_special_tokens=False)["input_ids"][0] == 1
    return tokenizer.bos_token, tokenizer.eos_token


@pytest.mark.parametrize(
    ("config", "generation", "own", "expected"),
    [
        ({"bos_token_id": 1, "eos_token_id": 0}, None, None, ("<s>", "<|endoftext|>")),
        ({}, {"bos_token_id": 1, "eos_token_id": [7, 0]}, None, ("<s>", "<|endoftext|>")),
        ({"bos_token_id": 1, "eos_token_id": 0}, None, {"eos_token": "<s>"}, ("<s>", "<s>")),
        ({"bos_token_id": 1, "eos_token_id": 0}, None, {"bos_token": None}, (None, "<|endoftext|>")),
        ({"text_config": {"eos_token_id": 0}}, None, {}, (None, "<|endoftext|>")),
        ({}, None, None, (None, None)),
        # transformers' own defaults of GPT-2 hold only where the configuration says nothing that can be used.
        ({"model_type": "gpt2", "bos_token_id": 1}, None, None, ("<s>", "<|endoftext|>")),
        ({"model_type": "gpt2", "bos_token_id": 50256}, None, None, ("<|endoftext|>", "<|endoftext|>")),
    ],
)
def test_where_the_ends_come_from(
    tmp_path: Path, config: dict[str, Any], generation: Any, own: Any, expected: tuple[str | None, str | None]
) -> None:
    assert ends(folder(tmp_path, config, generation, own)) == expected


def test_ids_that_are_no_special_token_are_said_and_not_used(tmp_path: Path) -> None:
    said: list[str] = []
    # A configuration's defaults: 40 is a piece of text, 50256 no token at all.
    assert ends(folder(tmp_path, {"bos_token_id": 40, "eos_token_id": 50256}), said) == (None, None)
    assert "bos_token_id 40 in config.json is no special token of its tokenizer: not used" in said[0]
    assert "eos_token_id 50256 in config.json is no special token" in said[0]
