"""Bits per byte against a loop over tokens, one text at a time, in float64."""

from __future__ import annotations

import dataclasses
import math
import random
import signal
import sys
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from distillkit import interrupts
from distillkit.errors import DistillkitError, Interrupted
from distillkit.evaluation import batched_forward
from distillkit.evaluation.bits_per_byte import ScoredText, Scores, score
from distillkit.models.backbone_and_head import split_model

CPU = torch.device("cpu")
VOCABULARY = 97


def make_texts(count: int = 12, seed: int = 0) -> list[ScoredText]:
    """Texts of 2 to 30 tokens with parts that are not scored; id 0, which fills the padding, is among the tokens."""
    generator = random.Random(seed)
    texts = []
    for index in range(count):
        ids = [
            generator.randrange(VOCABULARY) if generator.random() > 0.2 else 0 for _ in range(generator.randint(4, 30))
        ]
        first = generator.randint(1, 2)
        last = generator.randint(first + 1, len(ids))
        spans = [(first, last)]
        if last - first > 3 and index % 2:
            spans = [(first, first + 1), (first + 2, last)]
        texts.append(ScoredText(ids, spans, bytes=generator.randint(1, 60), document=10 - index % 4))
    return texts


def naive(model: nn.Module, texts: list[ScoredText]) -> dict[int, float]:
    """NLL per document: one unpadded text and one token at a time, in float64."""
    double = model.double()
    sums: dict[int, float] = {}
    for text in texts:
        for position in (at for first, last in text.spans for at in range(first, last)):
            with torch.no_grad():
                row = double(input_ids=torch.tensor([list(text.ids[:position])])).logits[0, -1]
            probabilities = [math.exp(value) for value in (row - row.max()).tolist()]
            nll = -math.log(probabilities[text.ids[position]] / math.fsum(probabilities))
            sums[text.document] = sums.get(text.document, 0.0) + nll
    model.float()
    return sums


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_equals_a_loop_over_tokens(family: str) -> None:
    model = tiny_model(family, vocab_size=VOCABULARY)
    texts = make_texts()
    expected = naive(model, texts)
    found = score(model, texts, device=CPU)
    assert found.documents.tolist() == sorted(expected)
    np.testing.assert_allclose(found.nll, [expected[document] for document in sorted(expected)], rtol=1e-6)
    assert found.bytes.sum() == sum(text.bytes for text in texts)
    assert found.tokens.sum() == sum(last - first for text in texts for first, last in text.spans)
    for row, document in enumerate(found.documents):
        assert found.bytes[row] == sum(text.bytes for text in texts if text.document == document)
        assert found.tokens[row] == sum(
            last - first for text in texts if text.document == document for first, last in text.spans
        )
    # Token by token, each text alone.
    for text, nats in zip(texts, found.by_token, strict=True):
        assert len(nats) == text.tokens
        with torch.no_grad():
            rows = model(input_ids=torch.tensor([list(text.ids)])).logits[0].double().log_softmax(-1)
        targets = [at for first, last in text.spans for at in range(first, last)]
        np.testing.assert_allclose(nats, [-rows[at - 1, text.ids[at]].item() for at in targets], rtol=1e-4)
    total = math.fsum(expected.values())
    assert found.bits_per_byte == pytest.approx(total / math.log(2) / sum(text.bytes for text in texts), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(total / found.tokens.sum()), rel=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox"])
def test_batches_and_chunks_do_not_matter(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(family, vocab_size=VOCABULARY)
    texts = make_texts(20)
    alone = score(model, texts, device=CPU, batch_tokens=1)
    together = score(model, list(reversed(texts)), device=CPU, batch_tokens=10_000)
    np.testing.assert_allclose(together.nll, alone.nll, atol=1e-5, rtol=0)
    monkeypatch.setattr(batched_forward, "WIDE_AT_ONCE", 3 * VOCABULARY)
    chunked = score(model, texts, device=CPU, batch_tokens=100)
    np.testing.assert_allclose(chunked.nll, alone.nll, atol=1e-5, rtol=0)


@pytest.mark.parametrize("plain", [True, False])
def test_a_head_apart_meets_few_rows_at_a_time(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny_model("llama", vocab_size=VOCABULARY)
    if not plain:
        scaled = AutoConfig.for_model(**{**model.config.to_dict(), "model_type": "granite", "logits_scaling": 4.0})
        model = AutoModelForCausalLM.from_config(scaled).eval()
    texts, parts, met = make_texts(20), split_model(model), list[int]()
    assert parts.apart == plain
    whole = score(model, texts, device=CPU)
    parts = dataclasses.replace(parts, head=lambda rows, head=parts.head: (met.append(len(rows)), head(rows))[1])
    monkeypatch.setattr(batched_forward, "WIDE_AT_ONCE", 3 * VOCABULARY)
    monkeypatch.setattr(batched_forward, "HEAD_AT_ONCE", 7 * VOCABULARY)
    apart = score(model, texts, device=CPU, batch_tokens=100, parts=parts)
    np.testing.assert_allclose(apart.nll, whole.nll, atol=1e-5, rtol=0)
    for ours, theirs in zip(apart.by_token, whole.by_token, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    if parts.apart:
        assert max(met) == 7
        assert sum(met) == sum(text.tokens for text in texts)  # Of a text that is read, rows that count alone.
    else:
        assert not met


def test_a_text_as_long_as_the_context_fits() -> None:
    # A table of 13 positions: padding to a multiple of 8 would leave it.
    model = tiny_model("gpt2", vocab_size=VOCABULARY, context=13)
    assert score(model, [ScoredText(range(13), [(1, 13)], 20, 0)], device=CPU).tokens.tolist() == [12]


def test_bytes_without_tokens_are_refused_and_empty_texts_are_not() -> None:
    model = tiny_model("llama", vocab_size=VOCABULARY)
    one = ScoredText([1, 2, 3], [(1, 3)], 4, 7)
    empty = [ScoredText([], [(1, 0)], 0, 3), ScoredText([5], [(1, 1)], 0, 7)]
    assert score(model, [one, *empty], device=CPU).bits_per_byte == score(model, [one], device=CPU).bits_per_byte
    assert score(model, [one, *empty], device=CPU).documents.tolist() == [3, 7]
    for nothing in ([], empty):
        with pytest.raises(DistillkitError, match="nothing that can be scored") as caught:
            _ = score(model, nothing, device=CPU).bits_per_byte
        assert "--held-out-size" in str(caught.value.hint)
    with pytest.raises(ValueError, match="no token"):
        ScoredText([5], [(1, 1)], 2, 0)
    for first, last in ((0, 2), (1, 4)):
        with pytest.raises(ValueError, match="cannot be scored"):
            ScoredText([1, 2, 3], [(first, last)], 2, 0)


def test_padded_columns_are_part_of_the_distribution() -> None:
    model = tiny_model("gpt2", vocab_size=128, tie_word_embeddings=False)
    texts = [ScoredText([1, 2, 3, 4], [(1, 4)], 9, 0)]
    before = score(model, texts, device=CPU).nll[0]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, 2, 3]])).logits[0].double()
    # With only the first 97 columns the likelihood would be higher.
    cut = -logits[:, :VOCABULARY].log_softmax(-1)[range(3), [2, 3, 4]].sum()
    assert before > float(cut) + 0.1


def test_a_likelihood_that_is_not_finite_names_the_document() -> None:
    model = tiny_model("llama", vocab_size=VOCABULARY)
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = float("nan")
    texts = [ScoredText([1, 2, 3], [(1, 3)], 4, 41), ScoredText([1, 5, 3], [(1, 3)], 4, 42)]
    with pytest.raises(DistillkitError, match="document 42"):
        score(model, texts, device=CPU)


def test_perplexity_beyond_floats_stays_finite() -> None:
    one = np.ones(1, dtype=np.int64)
    assert Scores(one, np.array([1e5]), one, one).perplexity == sys.float_info.max
    assert Scores(one, np.array([700.0]), one, one).perplexity == pytest.approx(math.exp(700.0))


def test_training_mode_is_restored_and_dropout_is_off() -> None:
    model = tiny_model("gpt2", vocab_size=VOCABULARY, dropout=0.5)
    texts = make_texts(4)
    expected = score(model, texts, device=CPU).nll
    model.train()
    model.transformer.h[0].eval()  # A frozen part stays frozen.
    assert score(model, texts, device=CPU).nll.tolist() == expected.tolist()
    assert model.training
    assert not model.transformer.h[0].training
    assert model.transformer.h[1].training


@pytest.fixture
def signal_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_received", signal.SIGTERM)


@pytest.mark.usefixtures("signal_arrived")
def test_a_signal_ends_it_unless_told_otherwise() -> None:
    model = tiny_model("gpt2", vocab_size=VOCABULARY)
    model.train()
    with pytest.raises(Interrupted):
        score(model, make_texts(2), device=CPU)
    assert model.training
    assert score(model, make_texts(2), device=CPU, interruptible=False).tokens.sum() > 0
