"""Tokenizers as llama.cpp wants them: recognised by their definition, and the same tokens for every kind of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from text_kinds import TEXT_KINDS
from tiny_exports import QUIET, student_of
from tiny_models import tiny_model, tiny_sentencepiece_tokenizer, tiny_tokenizer
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distillkit.errors import PreconditionError
from distillkit.exporting.as_llama_cpp_reads import tokenizer_of
from distillkit.exporting.gguf_file import plan_gguf, write_gguf
from distillkit.exporting.number_formats import GGUF_FORMATS
from distillkit.exporting.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, vocabulary_of

gguf = pytest.importorskip("gguf")

# As the models of these names have them in tokenizer.json.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(steps: list[Any], *, ignore_merges: bool = False, normalizer: Any = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE with this pre-tokenizer."""
    definition = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    definition["model"]["ignore_merges"] = ignore_merges
    backend = Tokenizer.from_str(json.dumps(definition))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if normalizer is not None:
        backend.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def split(expression: str) -> Any:
    return pre_tokenizers.Split(Regex(expression), behavior="isolated")


# No text that is read from UTF-8 has half a surrogate pair.
TEXTS = [text for text in TEXT_KINDS.values() if "\ud800" not in text]
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
KNOWN = {
    "gpt-2": lambda: byte_level([GPT2]),
    "smollm": lambda: byte_level([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "qwen2": lambda: byte_level([split(QWEN2), BYTES], normalizer=normalizers.NFC()),
    "llama-bpe": lambda: byte_level([split(LLAMA3), BYTES], ignore_merges=True),
    "dbrx": lambda: byte_level([split(LLAMA3), BYTES]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_pre_tokenizers_are_known_by_their_definition(name: str, tmp_path: Path) -> None:
    tokenizer = KNOWN[name]()
    student, _ = student_of(tmp_path / "student", tiny_model("llama", len(tokenizer)), tokenizer)
    plan = plan_gguf(student, GGUF_FORMATS["q8_0"])
    assert (plan.vocabulary.model, plan.vocabulary.pre) == ("gpt2", name)
    assert len(plan.vocabulary.notes) == (name == "qwen2")
    write_gguf(tmp_path / "model.gguf", plan, QUIET)
    reader, backend = tokenizer_of(tmp_path / "model.gguf"), student.tokenizer.backend_tokenizer
    for text in TEXTS:
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        if "<|endoftext|>" not in text:
            assert reader.encode(text) == backend.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize(
    ("steps", "settings", "words"),
    [
        ([split(r"\p{L}+"), BYTES], {}, "its pre-tokenizer is none of"),
        ([pre_tokenizers.Whitespace(), BYTES], {}, "a step Whitespace that is not known"),
        ([pre_tokenizers.ByteLevel(add_prefix_space=True)], {}, "puts a space before every text"),
        ([GPT2], {"ignore_merges": True}, "its pre-tokenizer is none of"),
        ([GPT2], {"normalizer": normalizers.Lowercase()}, "normalises texts"),
    ],
)
def test_others_are_refused(steps: list[Any], settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match=words) as caught:
        vocabulary_of(byte_level(steps, **settings), tmp_path, 384)
    assert "--format safetensors" in (caught.value.hint or "")


def test_sentencepiece(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    tokenizer = tiny_sentencepiece_tokenizer(tmp_path / "tokenizer")
    student, _ = student_of(tmp_path / "student", tiny_model("llama", len(tokenizer)), tokenizer)
    plan = plan_gguf(student, GGUF_FORMATS["q8_0"])
    vocabulary = plan.vocabulary
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer" / "tokenizer.model"))
    assert vocabulary.model == "llama"
    assert vocabulary.tokens == [model.id_to_piece(index) for index in range(len(tokenizer))]
    kinds = {0: UNKNOWN, 1: CONTROL, 2: CONTROL, 3: BYTE, 258: BYTE, 259: NORMAL}
    assert {index: vocabulary.types[index] for index in kinds} == kinds
    # The same order in which pieces are merged; letters are never merged into.
    merged = [index for index in range(259, len(tokenizer)) if len(vocabulary.tokens[index]) > 1]
    order = sorted(merged, key=lambda index: -model.get_score(index))
    assert sorted(merged, key=lambda index: -vocabulary.scores[index]) == order  # pyright: ignore
    assert (vocabulary.add_bos, vocabulary.add_eos, vocabulary.add_space_prefix) == (True, False, True)
    assert (vocabulary.special["bos"], vocabulary.special["eos"]) == (1, 2)
    assert vocabulary.notes == ("llama.cpp puts a space before a text that begins with one too",)
    write_gguf(tmp_path / "model.gguf", plan, QUIET)
    reader, backend = tokenizer_of(tmp_path / "model.gguf"), student.tokenizer.backend_tokenizer
    for text in TEXTS:
        if text and not text.startswith(" ") and not any(name in text for name in ("<s>", "</s>", "<unk>")):
            assert reader.encode(text) == backend.encode(text, add_special_tokens=False).ids, text


def test_ends_and_template(tmp_path: Path) -> None:
    tokenizer = byte_level([GPT2])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    rows = len(tokenizer)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, rows - 1]}))
    vocabulary = vocabulary_of(tokenizer, tmp_path, rows)
    assert (vocabulary.special["eos"], vocabulary.special["eot"]) == (0, rows - 1)
    assert vocabulary.types[rows - 1] == CONTROL
    assert vocabulary.template == tokenizer.chat_template
    assert not vocabulary.add_bos
    # An end of turn alone is what ends an answer.
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": rows - 1}))
    vocabulary = vocabulary_of(tokenizer, tmp_path, rows)
    assert vocabulary.special["eos"] == rows - 1
    assert "eot" not in vocabulary.special
    # A token without a row is left out, and so are merges that make one.
    short = vocabulary_of(tokenizer, tmp_path, rows - 2)
    assert len(short.tokens) == rows - 2
    assert "eos" not in short.special
    assert len(short.merges or ()) < len(vocabulary.merges or ())
