"""GGUF files: converted once into an ordinary model folder that holds the same weights and the same tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_model, tiny_tokenizer

from distillkit.console import Console
from distillkit.errors import DistillkitError, PreconditionError, UsageError
from distillkit.models.gguf import cached_conversion, converted_folder
from distillkit.models.loading import load_model, load_tokenizer
from distillkit.models.locating import locate
from distillkit.models.references import parse_reference

gguf = pytest.importorskip("gguf")

QUIET = Console(quiet=True)
TEXTS = ["The quick brown fox", "naïve café: 17 → 23\n\n  two", " def f(x):\n\treturn x"]


def write_gguf(path: Path) -> tuple[Path, Any, Any]:
    """A Llama of two layers with a byte-level BPE as a GGUF file; also the model and the tokenizer themselves."""
    model: Any = tiny_model("llama", 384, num_key_value_heads=4)
    tokenizer = tiny_tokenizer(384)
    config, backend = model.config, json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(backend["vocab"], key=backend["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == "<|endoftext|>" else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in backend["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.eos_token_id)
    names = {
        "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "model.layers.": "blk.",
    }  # fmt: skip
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        if ".q_proj." in name or ".k_proj." in name:
            # llama.cpp turns neighbouring pairs of a head where transformers turns its halves.
            values = values.reshape(4, 2, values.shape[0] // 8, -1).swapaxes(1, 2).reshape(values.shape)
        for theirs, own in names.items():
            name = name.replace(theirs, own)
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, model, tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_same_weights_and_tokenizer(made: tuple[Path, Any, Any], capfd: pytest.CaptureFixture[str]) -> None:
    path, model, tokenizer = made
    reference = parse_reference(str(path))
    assert reference.kind == "gguf"
    assert cached_conversion(reference) is None
    found = locate(reference, QUIET)
    again: Any = load_model(found, dtype=torch.float32, console=QUIET)
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.config.num_hidden_layers == 2
    assert not hasattr(again.config, "quantization_config")
    reread = load_tokenizer(found)
    for text in TEXTS:
        assert reread(text, add_special_tokens=False)["input_ids"] == tokenizer(text)["input_ids"]
    assert reread.eos_token == "<|endoftext|>"
    # No bar, no advice: a quiet console is quiet.
    assert capfd.readouterr() == ("", "")
    assert cached_conversion(reference) == found.folder


def test_a_file_is_parsed_once(made: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made_of: list[object] = []

    class CountingReader(gguf.GGUFReader):
        def __init__(self, path: Any, *further: Any) -> None:
            made_of.append(path)
            super().__init__(path, *further)

    def counting_names(*given: Any) -> Any:
        made_of.append(given)
        return names(*given)

    names = gguf.get_tensor_name_map
    monkeypatch.setattr(gguf, "GGUFReader", CountingReader)
    monkeypatch.setattr(gguf, "get_tensor_name_map", counting_names)
    converted_folder(made[0], QUIET)
    assert len(made_of) == 2
    # Afterwards the library is what it was, for whoever else reads such files.
    assert gguf.GGUFReader is CountingReader
    assert gguf.get_tensor_name_map is counting_names


def test_converted_once(made: tuple[Path, Any, Any], tmp_path: Path) -> None:
    first = converted_folder(made[0], QUIET)
    state = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    # The content counts, not the name.
    copy = tmp_path / "renamed.gguf"
    copy.write_bytes(made[0].read_bytes())
    assert converted_folder(copy, QUIET) == first
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == state


@pytest.mark.parametrize("damage", ["changed", "missing", "unmarked"])
def test_a_damaged_conversion_is_made_again(made: tuple[Path, Any, Any], damage: str) -> None:
    folder = converted_folder(made[0], QUIET)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    if damage == "changed":
        weights.write_bytes(content[:-4] + b"!!!!")
    elif damage == "missing":
        (folder / "tokenizer.json").unlink()
    else:
        (folder / "converted.json").write_text("[")
    assert converted_folder(made[0], QUIET) == folder
    assert load_file(weights).keys()
    assert weights.read_bytes() == content
    assert (folder / "tokenizer.json").is_file()


@pytest.mark.parametrize("keep", [0, 4, 1000, -1000])
def test_a_truncated_file_is_named(made: tuple[Path, Any, Any], tmp_path: Path, cache: Path, keep: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(made[0].read_bytes()[:keep])
    with pytest.raises(PreconditionError, match="cannot be read as a GGUF model") as caught:
        locate(parse_reference(str(path)), QUIET)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert not list(cache.rglob("*.safetensors"))


def test_something_else_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("these are words, and no model\n" * 100)
    with pytest.raises(PreconditionError, match="cannot be read as a GGUF model"):
        locate(parse_reference(str(tmp_path / "text.gguf")), QUIET)
    with pytest.raises(UsageError, match="does not exist"):
        parse_reference(str(tmp_path / "missing.gguf"))


def test_a_cache_that_cannot_be_written(
    made: tuple[Path, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DISTILLKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DistillkitError) as caught:
        converted_folder(made[0], QUIET)
    assert caught.value.exit_code == 1
    assert str(tmp_path / "file") in caught.value.message
    assert "DISTILLKIT_CACHE" in (caught.value.hint or "")
