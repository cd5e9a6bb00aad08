"""A student as a GGUF file: every architecture and format, read back by transformers and by a reader of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_exports import KINDS, QUIET, TEXTS, models, student_of
from tiny_models import tiny_model, tiny_tokenizer

from distillkit.errors import PreconditionError, UsageError
from distillkit.exporting import check as checking
from distillkit.exporting.check import check_gguf, read_gguf, student_score
from distillkit.exporting.chosen_student import ChosenStudent
from distillkit.exporting.export import checked_format, export, is_own_gguf
from distillkit.exporting.gguf_file import plan_gguf, write_gguf
from distillkit.exporting.number_formats import GGUF_FORMATS, tensor_format

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def vocab() -> int:
    return len(tiny_tokenizer())


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double()


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_the_same_model(kind: str, vocab: int, tmp_path: Path) -> None:
    student, model = student_of(tmp_path / "student", models(kind, vocab))
    path = tmp_path / "model.gguf"
    write_gguf(path, plan_gguf(student, GGUF_FORMATS["f32"]), QUIET)
    # Within Mistral's window: llama.cpp is told of no longer context.
    ids = [index % vocab for index in range(3, 63)]
    wanted, found = logits(model, ids), logits(read_gguf(path), ids)
    assert wanted.std() > 0.5  # else it could not fail
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("form", GGUF_FORMATS)
def test_every_format_holds_what_gguf_quantises(form: str, vocab: int, tmp_path: Path) -> None:
    student, model = student_of(tmp_path / "student", models("qwen2", vocab))
    path = tmp_path / "model.gguf"
    write_gguf(path, plan_gguf(student, GGUF_FORMATS[form]), QUIET)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    weights = {
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
        "output_norm.weight": "model.norm.weight",
    }
    for name, theirs in weights.items():
        values = model.state_dict()[theirs].numpy()
        kind = stored[name].tensor_type
        assert kind.name.lower() == tensor_format(name, values.shape, GGUF_FORMATS[form])
        back = gguf.dequantize(stored[name].data, kind).reshape(values.shape)
        np.testing.assert_array_equal(back, gguf.dequantize(gguf.quantize(values, kind), kind).reshape(values.shape))
    assert stored["output_norm.weight"].tensor_type.name == "F32"
    assert stored["token_embd.weight"].tensor_type.name.lower() == GGUF_FORMATS[form].embeddings
    assert "output.weight" not in stored  # tied


def test_rows_that_are_no_blocks_stay_in_fp16(vocab: int, tmp_path: Path) -> None:
    student, _ = student_of(tmp_path / "student", models("llama, narrowed", vocab))
    plan = plan_gguf(student, GGUF_FORMATS["q4_0"])
    formats = {tensor.name: tensor.format for tensor in plan.tensors}
    assert formats["blk.0.attn_q.weight"] == "f16"  # rows of 40
    assert formats["blk.0.attn_output.weight"] == "q4_0"  # rows of 64
    assert plan.unblocked == sum(form == "f16" for form in formats.values()) > 0


def test_metadata(vocab: int, tmp_path: Path) -> None:
    model = models("llama", vocab + 5)
    student, _ = student_of(tmp_path / "student", model)
    path = tmp_path / "model.gguf"
    write_gguf(path, plan_gguf(student, GGUF_FORMATS["q8_0"]), QUIET)
    file = gguf.GGUFReader(path)

    def value(name: str) -> Any:
        return file.get_field(name).contents()

    assert value("general.architecture") == "llama"
    assert value("general.file_type") == gguf.LlamaFileType.MOSTLY_Q8_0
    assert [value(f"llama.{name}") for name in (
        "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.key_length", "rope.dimension_count", "vocab_size",
    )] == [2, 256, 64, 128, 4, 2, 16, 16, vocab + 5]  # fmt: skip
    assert value("llama.attention.layer_norm_rms_epsilon") == pytest.approx(model.config.rms_norm_eps)
    assert value("llama.rope.freq_base") == pytest.approx(10000.0)
    # A row without a token has one that no text gives.
    assert len(value("tokenizer.ggml.tokens")) == vocab + 5
    assert value("tokenizer.ggml.tokens")[-1] == f"[PAD{vocab + 4}]"
    assert value("tokenizer.ggml.token_type")[-1] == gguf.TokenType.UNUSED
    assert value("tokenizer.ggml.eos_token_id") == student.tokenizer.eos_token_id
    assert is_own_gguf(path)


@pytest.mark.parametrize(
    ("kind", "setting", "value", "words"),
    [
        ("llama", "hidden_act", "relu", "its activation is relu"),
        ("llama", "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}, "scaled by 'yarn'"),
        ("gpt2", "activation_function", "relu", "its activation is relu"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True, "scaled otherwise"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(
    kind: str, setting: str, value: Any, words: str, vocab: int, tmp_path: Path
) -> None:
    student, _ = student_of(tmp_path / "student", tiny_model(kind, vocab, **{setting: value}))
    with pytest.raises(PreconditionError, match=words) as caught:
        plan_gguf(student, GGUF_FORMATS["f16"])
    assert "convert_hf_to_gguf.py" in (caught.value.hint or "")


def test_other_architectures_and_heads_of_qwen2_are_refused(vocab: int, tmp_path: Path) -> None:
    student, _ = student_of(tmp_path / "neox", tiny_model("gpt_neox", vocab))
    with pytest.raises(PreconditionError, match="gpt_neox is not exported to GGUF: these are covered: llama"):
        plan_gguf(student, GGUF_FORMATS["f16"])
    model = tiny_model("qwen2", vocab, hidden=40, head_dim=16)
    student, _ = student_of(tmp_path / "qwen2", model)
    with pytest.raises(PreconditionError, match="its heads are 64 wide together and its hidden states 40"):
        plan_gguf(student, GGUF_FORMATS["f16"])


def test_a_wrong_file_is_found(vocab: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of queries that keep their places: what a file with a forgotten permutation is."""
    from distillkit.evaluation.bits_per_byte import ScoredText
    from distillkit.exporting import architectures

    student, _ = student_of(tmp_path / "student", models("llama", vocab))
    ids = [index % vocab for index in range(3, 120)]
    texts = [ScoredText(ids, [(1, len(ids))], 300, 0)]
    expected = student_score(student, texts, QUIET)
    good, bad = tmp_path / "good.gguf", tmp_path / "bad.gguf"
    write_gguf(good, plan_gguf(student, GGUF_FORMATS["f16"]), QUIET)
    found = check_gguf(good, student, texts, TEXTS, expected, GGUF_FORMATS["f16"].tolerance)
    assert found.exported == pytest.approx(expected, rel=2e-3)
    assert found.same_tokens == len(TEXTS)
    wrong = architectures.Architecture(
        "llama", lambda config: None, architectures._describe_decoder, architectures._as_it_is
    )
    monkeypatch.setitem(architectures.ARCHITECTURES, "llama", wrong)
    write_gguf(bad, plan_gguf(student, GGUF_FORMATS["f16"]), QUIET)
    with pytest.raises(PreconditionError, match="the export is not the student"):
        check_gguf(bad, student, texts, TEXTS, expected, GGUF_FORMATS["f16"].tolerance)


def test_weights_beyond_fp16_are_refused(vocab: int, tmp_path: Path) -> None:
    model = models("llama", vocab)
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = 1e6
    student, _ = student_of(tmp_path / "student", model)
    with pytest.raises(PreconditionError, match="beyond what fp16 holds"):
        write_gguf(tmp_path / "model.gguf", plan_gguf(student, GGUF_FORMATS["f16"]), QUIET)
    write_gguf(tmp_path / "model.gguf", plan_gguf(student, GGUF_FORMATS["bf16"]), QUIET)


def test_formats_are_named() -> None:
    assert checked_format("gguf", None) == "f16"
    assert checked_format("gguf", "Q8_0") == "q8_0"
    assert checked_format("safetensors", None) is None
    with pytest.raises(UsageError, match="'q4_k_m'") as caught:
        checked_format("gguf", "q4_k_m")
    assert "llama-quantize" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="'q8_0' is not one of safetensors's"):
        checked_format("safetensors", "q8_0")
    with pytest.raises(UsageError, match="--format: 'onnx'"):
        checked_format("onnx", None)


def test_nothing_is_left_of_an_export_that_fails(vocab: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillkit.evaluation.bits_per_byte import ScoredText
    from distillkit.exporting.chosen_student import CheckTexts

    student, _ = student_of(tmp_path / "student", models("llama", vocab))
    ids = [index % vocab for index in range(3, 60)]
    texts = CheckTexts([ScoredText(ids, [(1, len(ids))], 150, 0)], TEXTS)
    monkeypatch.setattr(ChosenStudent, "check_texts", lambda self: texts)
    out = tmp_path / "out" / "model.gguf"
    first = export(student, "gguf", "q8_0", out, QUIET)
    assert first.path == out
    before = out.read_bytes()
    monkeypatch.setattr(checking, "_check_tokens", lambda *_: (_ for _ in ()).throw(PreconditionError("no", hint="x")))
    with pytest.raises(PreconditionError):
        export(student, "gguf", "f16", out, QUIET)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]
    other = tmp_path / "other.gguf"
    other.write_bytes(b"something precious")
    with pytest.raises(UsageError, match="is there already"):
        export(student, "gguf", "f16", other, QUIET)
    assert other.read_bytes() == b"something precious"
