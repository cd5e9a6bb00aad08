"""Tokens without a row are counted, named, and given one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer

from distillkit.errors import PreconditionError, UsageError
from distillkit.models.located import LocatedModel
from distillkit.models.references import parse_reference
from distillkit.models.usable_ids import MissingRows, add_rows, embedding_rows


def located(folder: Path) -> LocatedModel:
    return LocatedModel(parse_reference(str(folder)), folder)


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_rows_of_an_embedding(tmp_path: Path, family: str) -> None:
    folder = save_model_folder(tmp_path / "model", tiny_model(family, 310), tiny_tokenizer(300))
    assert embedding_rows(located(folder)) == 310
    assert MissingRows.of("student", located(folder), tiny_tokenizer(300)) is None
    # Of a model that brings its own code only the files tell.
    change(folder, auto_map={"AutoModelForCausalLM": "own.Own"}, vocab_size=999)
    assert embedding_rows(located(folder)) == 310


def test_a_configuration_that_contradicts_the_weights(tmp_path: Path) -> None:
    folder = save_model_folder(tmp_path / "model", tiny_model("llama", 300), tiny_tokenizer(300))
    change(folder, vocab_size=320)
    with pytest.raises(PreconditionError, match="there are 320 tokens, the embedding has 300 rows"):
        embedding_rows(located(folder))


def test_what_is_said(tmp_path: Path) -> None:
    folder = save_model_folder(tmp_path / "model", tiny_model("llama", 300), tiny_tokenizer(300))
    tokenizer = tiny_tokenizer(300)
    tokenizer.add_tokens(["<tool>", "<call>"])
    missing = MissingRows.of("teacher", located(folder), tokenizer)
    assert missing is not None
    assert missing.around(0, None) == {}
    assert missing.around(300, 301) == {301: "its end-of-text token", 300: "its beginning-of-text token"}
    met = missing.inside([[1, 300, 300], [300], [2]])
    assert met == {300: "in 2 texts"}
    counts = "the teacher's tokenizer has 302 tokens, its embedding 300 rows: "
    assert missing.refused(met).message == counts + "id 300 ('<tool>', in 2 texts) has no row"
    assert missing.unread().startswith(counts + "id 300 ('<tool>') and 1 more have no row; that does no harm")
    assert missing.resized(met).endswith("2 rows like the mean of the others are added")


@pytest.mark.parametrize(("family", "tied"), [("gpt2", True), ("gpt2", False), ("llama", False), ("qwen2", True)])
def test_added_rows_are_the_same_every_time(family: str, tied: bool) -> None:
    def resized() -> Any:
        return add_rows(tiny_model(family, 300, tie_word_embeddings=tied), 303, "it")

    before = tiny_model(family, 300, tie_word_embeddings=tied).get_input_embeddings().weight
    random = torch.get_rng_state()
    first, second = resized(), resized()
    assert torch.equal(torch.get_rng_state(), random)
    rows, head = first.get_input_embeddings().weight, first.get_output_embeddings().weight
    assert rows.shape[0] == head.shape[0] == first.config.vocab_size == 303
    assert torch.equal(rows[:300], before)
    torch.testing.assert_close(rows[300:], before.mean(0).expand(3, -1), atol=1e-3, rtol=0)
    assert torch.equal(rows, second.get_input_embeddings().weight)
    assert torch.equal(head, second.get_output_embeddings().weight)
    assert (head is rows) == tied


def test_a_model_that_cannot_be_resized() -> None:
    class Fixed(torch.nn.Module):
        pass

    with pytest.raises(UsageError, match="needs 303 rows in its embedding and cannot be resized"):
        add_rows(Fixed(), 303, "it")
