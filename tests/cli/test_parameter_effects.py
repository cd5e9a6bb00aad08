"""Every parameter does what its description promises: one test for each, named after it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from chat_server import ChatServer
from safetensors.torch import load_file

from distillkit import PreconditionError, QualityGateError, UsageError, installing
from distillkit.installing import is_satisfied
from distillkit.losses.kernels import compiler_available
from distillkit.settings import declared
from distillkit.training.optimizers import BITSANDBYTES

Distil = Callable[..., Any]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def manifest(result: Any) -> dict[str, Any]:
    return read(result.run_directory / "manifest.json")


def stats(result: Any) -> dict[str, Any]:
    return read(result.run_directory / "data" / "stats.json")


def lines(result: Any, figure: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that carry a figure."""
    text = (result.run_directory / "metrics.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if figure in line]


def weights(result: Any, which: str = "final") -> dict[str, torch.Tensor]:
    return load_file(result.run_directory / "student" / which / "model.safetensors")


def equal_weights(one: Any, other: Any) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def first(result: Any) -> dict[str, Any]:
    """The first training step, which both of two compared runs do with the same weights on the same batch."""
    return lines(result, "loss")[0]


def example_column(result: Any, part: str, column: str) -> list[Any]:
    from distillkit.data.examples import load_examples

    return [row[column] for row in load_examples(result.run_directory / "data" / part)]


@pytest.fixture(scope="session")
def base(distil: Distil) -> Any:
    """A run with nothing but the small settings, to compare with."""
    return distil()


@pytest.mark.parametrize("name", declared.fields())
def test_every_parameter_has_a_test(name: str) -> None:
    assert f"test_{name}" in globals()


# --- models ----------------------------------------------------------------------------------------------------------


def test_teacher_model(distil: Distil, base: Any, pair: SimpleNamespace) -> None:
    other = distil(teacher_model=str(pair.other_teacher))
    assert manifest(other)["models"]["teacher"] != manifest(base)["models"]["teacher"]
    assert first(other)["soft_loss"] != pytest.approx(first(base)["soft_loss"], rel=1e-3)
    assert first(other)["hard_loss"] == pytest.approx(first(base)["hard_loss"], rel=1e-6)
    with pytest.raises(PreconditionError, match="someone/absent-teacher"):
        distil(teacher_model="someone/absent-teacher")


def test_student_model(distil: Distil, pair: SimpleNamespace) -> None:
    named = distil(student_model=str(pair.student))
    assert read(named.student_path / "config.json")["n_embd"] == 16
    pruned = distil(student_model="teacher:1")
    shape = read(pruned.student_path / "config.json")
    assert (shape["n_layer"], shape["n_embd"]) == (1, 32)
    with pytest.raises(PreconditionError, match="someone/absent-student"):
        distil(student_model="someone/absent-student")


def test_box_type(distil: Distil, base: Any) -> None:
    black = distil(box_type="black")
    generated = (black.run_directory / "teacher" / "generated.jsonl").read_text(encoding="utf-8")
    assert len(generated.splitlines()) >= 16
    assert "teacher_pass" not in black.metrics
    # The teacher's texts come on top of the true ones.
    assert black.metrics["train"]["steps"] > base.metrics["train"]["steps"]
    assert base.metrics["teacher_pass"]["tokens"] > 0
    assert not (base.run_directory / "teacher" / "generated.jsonl").exists()


def test_teacher_model_path(distil: Distil, base: Any, tmp_path: Path, pair: SimpleNamespace) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("teacher_model: someone/absent-teacher\n", encoding="utf-8")
    result = distil(config=config)
    assert manifest(result)["models"]["teacher"] == manifest(base)["models"]["teacher"]
    assert str(pair.teacher) in json.dumps(manifest(result)["models"]["teacher"])


def test_student_model_path(distil: Distil, base: Any, tmp_path: Path, pair: SimpleNamespace) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("student_model: someone/absent-student\n", encoding="utf-8")
    result = distil(config=config)
    assert equal_weights(result, base)
    assert str(pair.student) in json.dumps(manifest(result)["models"]["student"])


# --- data ------------------------------------------------------------------------------------------------------------


def test_dataset(distil: Distil, pair: SimpleNamespace) -> None:
    own = distil(dataset=str(pair.other_texts))
    assert stats(own)["source"] == str(pair.other_texts)
    documentation = distil(dataset="python-docs")
    assert stats(documentation)["source"].startswith("the documentation of")
    for name, repository in (("wikitext", "Salesforce/wikitext"), ("pokemon", "wanghaofan/pokemon-wiki-captions")):
        with pytest.raises(PreconditionError, match=repository):
            distil(dataset=name)


def test_dataset_path(distil: Distil, base: Any, tmp_path: Path, pair: SimpleNamespace) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"dataset: {pair.other_texts}\n", encoding="utf-8")
    result = distil(config=config)
    assert stats(result)["source"] == str(pair.texts) == stats(base)["source"]


def test_sample_size(distil: Distil, base: Any) -> None:
    result = distil(sample_size=24)
    assert stats(base)["splits"]["train"]["examples"] == 16
    assert stats(result)["splits"]["train"]["examples"] == 24
    assert result.metrics["train"]["tokens"] > base.metrics["train"]["tokens"]


def test_max_length(distil: Distil, base: Any) -> None:
    result = distil(max_length=32)
    shorter, longer = (max(map(len, example_column(run, "train", "student_ids"))) for run in (result, base))
    assert 24 < shorter <= 32 < longer <= 64


# --- distillation ----------------------------------------------------------------------------------------------------


def test_temperature(distil: Distil, base: Any) -> None:
    result = distil(temperature=5.0)
    assert first(result)["soft_loss"] != pytest.approx(first(base)["soft_loss"], rel=1e-3)
    assert first(result)["hard_loss"] == pytest.approx(first(base)["hard_loss"], rel=1e-6)
    assert not equal_weights(result, base)


def weighted(line: dict[str, Any], alpha: float, beta: float) -> float:
    return alpha * line["soft_loss"] + beta * line["hard_loss"]


def test_alpha(distil: Distil, base: Any) -> None:
    assert first(base)["loss"] == pytest.approx(weighted(first(base), 0.7 / 4, 1 - 0.7 / 4), rel=1e-5)
    plain, result = (distil(alpha=alpha, temperature=1.0) for alpha in (0.7, 0.2))
    assert first(plain)["loss"] == pytest.approx(weighted(first(plain), 0.7, 0.3), rel=1e-5)
    assert manifest(result)["config"]["beta"] == 0.8
    assert manifest(result)["sources"]["beta"] == "derived (1 - alpha)"
    assert first(result)["loss"] == pytest.approx(weighted(first(plain), 0.2, 0.8), rel=1e-5)
    assert not equal_weights(result, plain)
    without = distil(alpha=0.0)
    assert "teacher_pass" not in without.metrics


def test_beta(distil: Distil, base: Any) -> None:
    result = distil(beta=0.0)
    assert manifest(result)["config"]["alpha"] == 1.0
    assert first(result)["loss"] == pytest.approx(first(base)["soft_loss"], rel=1e-5)
    assert not equal_weights(result, base)
    with pytest.raises(UsageError, match=r"alpha \+ beta must be 1"):
        distil(alpha=0.5, beta=0.4)


# --- training --------------------------------------------------------------------------------------------------------


def test_epochs(distil: Distil, base: Any) -> None:
    result = distil(epochs=2)
    assert result.metrics["train"]["steps"] == 2 * base.metrics["train"]["steps"] == 8
    assert result.metrics["train"]["tokens"] == 2 * base.metrics["train"]["tokens"]
    assert lines(result, "loss")[-1]["epoch"] == 2


def test_batch_size(distil: Distil, base: Any) -> None:
    result = distil(batch_size=8)
    assert (base.metrics["train"]["steps"], result.metrics["train"]["steps"]) == (4, 2)
    assert result.metrics["train"]["tokens"] == base.metrics["train"]["tokens"]


def test_learning_rate(distil: Distil, base: Any) -> None:
    result = distil(learning_rate=2e-4)
    assert max(line["learning_rate"] for line in lines(base, "loss")) == pytest.approx(1e-3)
    assert max(line["learning_rate"] for line in lines(result, "loss")) == pytest.approx(2e-4)
    untrained = lines(base, "eval_bits_per_byte")[0]["eval_bits_per_byte"]
    gains = [untrained - lines(run, "eval_bits_per_byte")[-1]["eval_bits_per_byte"] for run in (base, result)]
    assert gains[0] > gains[1] > 0


def test_no_cuda(distil: Distil, base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillkit.device import precision

    class TorchWithGpu:
        """torch as distillkit would find it on a machine with a GPU; to the other libraries there is none."""

        cuda = SimpleNamespace(is_available=lambda: True, current_device=lambda: 0)

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(precision, "torch", TorchWithGpu())
    assert precision.best_device(no_cuda=False).type == "cuda"
    result = distil(no_cuda=True)
    assert manifest(result)["device"]["type"] == "cpu"
    assert result.metrics["train"]["steps"] == base.metrics["train"]["steps"]


# --- output ----------------------------------------------------------------------------------------------------------


def test_output_dir(distil: Distil, tmp_path: Path) -> None:
    result = distil(output_dir=tmp_path / "elsewhere")
    assert result.run_directory.parent == tmp_path / "elsewhere"
    assert (tmp_path / "elsewhere" / "latest").read_text(encoding="utf-8").strip() == result.run_directory.name


def test_folder_name(distil: Distil, tmp_path: Path) -> None:
    assert distil(folder_name="experiment_1", output_dir=tmp_path).run_directory == tmp_path / "experiment_1"
    unnamed = [distil(folder_name=None, output_dir=tmp_path).run_directory.name for _ in range(2)]
    assert unnamed[0] != unnamed[1]
    assert all(name.startswith("teacher_to_student_white_texts_") for name in unnamed)


def test_checkpoint_interval(distil: Distil, base: Any) -> None:
    result = distil(checkpoint_interval=2)

    def checkpoints(run: Any) -> list[str]:
        return sorted(folder.parent.name for folder in run.run_directory.glob("checkpoints/*/COMMITTED.json"))

    def evaluated(run: Any) -> list[int]:
        return [line["step"] for line in lines(run, "eval_bits_per_byte")]

    assert (checkpoints(result), evaluated(result)) == (["step-2", "step-4"], [0, 2, 4])
    assert (checkpoints(base), evaluated(base)) == (["step-4"], [0, 4])


def test_save_metrics(distil: Distil, base: Any) -> None:
    result = distil(save_metrics=False)
    for name in ("metrics.json", "metrics.jsonl"):
        assert (base.run_directory / name).is_file()
        assert not (result.run_directory / name).exists()
    assert result.metrics["train"]["steps"] == 4
    assert equal_weights(result, base)


def test_save_plot(distil: Distil, base: Any) -> None:
    result = distil(save_plot=True)
    assert [path for path in result.run_directory.glob("plots/*.png") if path.stat().st_size > 1000]
    assert not (base.run_directory / "plots").exists()


def test_save_best_model(distil: Distil) -> None:
    settings = {"checkpoint_interval": 1, "learning_rate": 3.0, "lr_schedule": "constant"}
    result = distil(save_best_model=True, **settings)
    scores = {line["step"]: line["eval_bits_per_byte"] for line in lines(result, "eval_bits_per_byte") if line["step"]}
    best = min(scores, key=lambda step: scores[step])
    assert best < 4, "this learning rate must spoil the student at the end, or best and final are the same"
    assert result.metrics["best"] == {"step": best, "bits_per_byte": scores[best]}
    assert result.student_path == result.run_directory / "student" / "best"
    assert not torch.equal(*(weights(result, which)["transformer.wte.weight"] for which in ("best", "final")))
    only_final = distil(save_best_model=False, **settings)
    assert [folder.name for folder in (only_final.run_directory / "student").iterdir()] == ["final"]
    assert only_final.student_path == only_final.run_directory / "student" / "final"
    assert equal_weights(only_final, result)


# --- extras ----------------------------------------------------------------------------------------------------------


def test_skip_validation(distil: Distil, base: Any) -> None:
    assert base.verdict is None
    assert not (base.run_directory / "validation.json").exists()
    result = distil(skip_validation=False)
    figures = read(result.run_directory / "validation.json")
    assert result.verdict == figures["verdict"] == "improved"
    assert figures["after"]["bits_per_byte"] < figures["before"]["bits_per_byte"]


def test_install_deps(distil: Distil, pair: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher whose tokenizer files need a library that is not there."""
    from distillkit.models import requirements

    teacher = shutil.copytree(pair.teacher, tmp_path / "teacher")
    (teacher / "vocabulary.tiktoken").write_bytes(b"")
    monkeypatch.setattr(requirements, "TIKTOKEN", "distillkit-absent-library>=2.1")
    with pytest.raises(PreconditionError, match=r"distillkit-absent-library>=2\.1") as caught:
        distil(teacher_model_path=teacher, install_deps=False)
    assert caught.value.exit_code == 3
    assert "--install-deps" in str(caught.value.hint)

    commands = []
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)

    def installer(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        information = site / "distillkit_absent_library-2.2.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text("Name: distillkit-absent-library\nVersion: 2.2\n", encoding="utf-8")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", installer)
    result = distil(teacher_model_path=teacher, install_deps=True)
    assert len(commands) == 1
    assert "install" in commands[0]
    assert sys.executable in commands[0]
    assert commands[0][-1] == "distillkit-absent-library>=2.1"
    assert manifest(result)["versions"]["distillkit-absent-library"] == "2.2"


def test_run_tests(distil: Distil, base: Any) -> None:
    result = distil(run_tests=True, compile_loss="off")
    assert manifest(base)["stages"]["check-env"]["metrics"]["self_tests"] == 0
    assert manifest(result)["stages"]["check-env"]["metrics"]["self_tests"] > 3
    assert equal_weights(result, base), "the self-tests must leave the random state alone"


def test_skip_demo(distil: Distil, base: Any) -> None:
    assert not (base.run_directory / "demo.json").exists()
    result = distil(skip_demo=False)
    texts = read(result.run_directory / "demo.json")["texts"]
    assert texts
    assert all({"prompt", "teacher", "before", "after"} <= text.keys() for text in texts)


# --- knobs of the training -------------------------------------------------------------------------------------------


def test_optimizer(distil: Distil, base: Any) -> None:
    """The first loss is the same, what is learned from it is not; a library that is missing is named before anything runs."""
    found = {name: distil(optimizer=name) for name in ("adafactor", "muon")}
    for name, result in found.items():
        assert first(result)["loss"] == first(base)["loss"]
        assert not equal_weights(result, base)
        assert re.search(rf"Optimizer\W+{name}\b", (result.student_path / "README.md").read_text(encoding="utf-8"))
    assert not equal_weights(*found.values())
    if is_satisfied(BITSANDBYTES):
        assert first(distil(optimizer="adamw-8bit"))["loss"] == first(base)["loss"]
    else:
        with pytest.raises(PreconditionError, match="--optimizer adamw-8bit needs 'bitsandbytes"):
            distil(optimizer="adamw-8bit", install_deps=False)


def test_weight_decay(distil: Distil, base: Any) -> None:
    """With a rate that moves nothing else, what is left of a matrix is the product of what the steps take off."""
    result = distil(
        weight_decay=0.5, learning_rate=0.1, lr_schedule="constant", warmup_fraction=0.0, max_grad_norm=1e-30
    )
    start, end = load_file(base_student(base) / "model.safetensors"), weights(result)
    name = "transformer.h.0.mlp.c_fc.weight"
    assert torch.allclose(end[name], start[name] * (1 - 0.1 * 0.5) ** 4, rtol=1e-5, atol=1e-7)
    assert torch.equal(end["transformer.ln_f.weight"], start["transformer.ln_f.weight"])


def base_student(result: Any) -> Path:
    return Path(manifest(result)["config"]["student_model_path"])


def test_max_grad_norm(distil: Distil, base: Any) -> None:
    norms = [line["grad_norm"] for line in lines(base, "loss")]
    never, always = distil(max_grad_norm=0.0), distil(max_grad_norm=min(norms) / 2)
    assert equal_weights(never, base) is (max(norms) <= 1.0)
    # AdamW does not see a factor that all its gradients share, but for its epsilon.
    assert not equal_weights(always, base)
    assert first(always)["grad_norm"] == first(base)["grad_norm"] == first(never)["grad_norm"]


@pytest.fixture(scope="session")
def adapted(distil: Distil) -> Any:
    """The base run with an adapter."""
    return distil(adapter="lora")


def test_adapter(adapted: Any, base: Any) -> None:
    """The same start; only the projections change, and checkpoints hold their adapters alone."""
    assert first(adapted)["loss"] == first(base)["loss"]
    start, end = load_file(base_student(base) / "model.safetensors"), weights(adapted)
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed == {
        f"transformer.h.0.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    (checkpoint,) = (adapted.run_directory / "checkpoints").iterdir()
    held = load_file(checkpoint / "trained.safetensors")
    assert adapted.metrics["train"]["trained_parameters"] == sum(value.numel() for value in held.values())
    assert not (checkpoint / "model.safetensors").exists()
    card = (adapted.student_path / "README.md").read_text(encoding="utf-8")
    assert "a LoRA adapter of rank 16, alpha 32, merged into the weights" in card


def test_lora_rank(distil: Distil, adapted: Any) -> None:
    other = distil(adapter="lora", lora_rank=8, lora_alpha=32.0)
    trained = [run.metrics["train"]["trained_parameters"] for run in (other, adapted)]
    assert 2 * trained[0] == trained[1]


def test_lora_alpha(distil: Distil, adapted: Any) -> None:
    """The first step moves B alone, by as much; what it adds is twice as much."""
    settings: dict[str, Any] = {"adapter": "lora", "max_steps": 1, "warmup_fraction": 0.0}
    once, twice = distil(**settings), distil(**settings, lora_alpha=64.0)
    start, name = load_file(base_student(adapted) / "model.safetensors"), "transformer.h.0.mlp.c_fc.weight"
    moved = [weights(run)[name] - start[name] for run in (once, twice)]
    assert (2 * moved[0] - moved[1]).abs().max() < 0.02 * moved[1].abs().max()


def test_lora_dropout(distil: Distil, adapted: Any) -> None:
    other = distil(adapter="lora", lora_dropout=0.5)
    assert first(other)["loss"] == first(adapted)["loss"]  # B is zero.
    assert not equal_weights(other, adapted)
    assert re.search(r"Dropout of the adapter\W+0.5", (other.student_path / "README.md").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_keep_adapter(distil: Distil, adapted: Any) -> None:
    """What peft loads on top of the model that is named, which is the student's own folder."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    kept = distil(adapter="lora", keep_adapter=True)
    assert not (kept.student_path / "model.safetensors").exists()
    assert Path(read(kept.student_path / "adapter_config.json")["base_model_name_or_path"]) == base_student(kept)
    whole = AutoModelForCausalLM.from_pretrained(adapted.student_path)
    ids = torch.arange(10)[None]
    found, expected = AutoPeftModelForCausalLM.from_pretrained(kept.student_path)(ids).logits, whole(ids).logits
    assert (found - expected).abs().max() < 1e-5 * expected.std()
    card = (kept.student_path / "README.md").read_text(encoding="utf-8")
    assert "library_name: peft" in card
    assert "PeftModel.from_pretrained(model" in card


def test_gradient_checkpointing(distil: Distil, base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same student, and in each of the four steps its one layer runs twice."""
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    forward, counted = GPT2MLP.forward, []

    def counting(self: Any, *args: Any) -> Any:
        counted.append(self.training)
        return forward(self, *args)

    monkeypatch.setattr(GPT2MLP, "forward", counting)
    again = distil(gradient_checkpointing=True)
    assert sum(counted) == 2 * base.metrics["train"]["steps"]
    assert equal_weights(again, base)
    assert "gradient_checkpointing" not in read(again.student_path / "config.json")


def test_max_steps(distil: Distil, base: Any, tmp_path: Path) -> None:
    """Fewer steps than an epoch, then more; they reach the end of their own schedule."""
    short = distil(max_steps=3, output_dir=tmp_path, folder_name="run")
    assert short.metrics["train"]["steps"] == 3
    assert lines(short, "loss")[-1]["learning_rate"] == pytest.approx(1e-3 / 3)
    longer = distil(max_steps=6, output_dir=tmp_path, folder_name="run")
    assert longer.metrics["train"]["steps"] == 6
    assert [line["step"] for line in lines(longer, "loss")] == [1, 2, 3, 4, 5, 6]
    assert equal_weights(distil(max_steps=4), base)
    with pytest.raises(PreconditionError, match="max_steps: 6 -> 5"):
        distil(max_steps=5, output_dir=tmp_path, folder_name="run")


def test_early_stopping_patience(distil: Distil, capsys: pytest.CaptureFixture[str]) -> None:
    """A learning rate that spoils the student: the first score stays the best, for the student and for its control."""
    settings: dict[str, Any] = {
        "checkpoint_interval": 1, "learning_rate": 3.0, "lr_schedule": "constant", "epochs": 2,
    }  # fmt: skip
    whole = distil(**settings)
    settings |= {"control": True, "skip_validation": False, "quality_gate": "off", "quiet": False}
    early = distil(early_stopping_patience=2, **settings)
    best = whole.metrics["best"]["step"]
    scores = [line["eval_bits_per_byte"] for line in lines(whole, "eval_bits_per_byte")][1:]
    ends = next(
        step for step in range(3, 9) if min(scores[step - 2 : step]) >= min(scores[: step - 2])
    )  # fmt: skip
    assert early.metrics["train"]["steps"] == ends < 8
    assert early.metrics["train"]["stopped_early"] == {"patience": 2, "of_steps": 8}
    assert best <= ends - 2 or early.metrics["best"]["step"] == ends - 2
    assert lines(early, "eval_bits_per_byte") == lines(whole, "eval_bits_per_byte")[: ends + 1]
    said = f"stopped early, after step {ends} of 8: 2 held-out scores in a row without a new best one"
    assert said in early.verdict_sentence
    assert said in " ".join(capsys.readouterr().err.split())
    control = manifest(early)["stages"]["control"]["metrics"]["train"]
    assert control["stopped_early"]["patience"] == 2
    assert control["steps"] < 8


def test_parallel(distil: Distil, base: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """In one process nothing but a line; in two: tests/faults/test_several_processes.py."""
    alone = distil(parallel="fsdp", quiet=False)
    assert "--parallel fsdp: there is one process" in " ".join(capsys.readouterr().err.split())
    assert equal_weights(alone, base)
    for other in ({"optimizer": "muon"}, {"precision": "fp16", "no_cuda": False}):
        with pytest.raises(UsageError, match=r"--parallel fsdp and --.* exclude each other"):
            distil(parallel="fsdp", **other)


def test_attn_implementation(distil: Distil, base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import sdpa_attention
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    counted = []

    def counting(module: Any, *args: Any, **kwargs: Any) -> Any:
        counted.append(module.training)
        return sdpa_attention.sdpa_attention_forward(module, *args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", counting)
    eager = distil(attn_implementation="eager")
    # What is written is read once more, as anybody would read it.
    assert counted
    assert not any(counted)
    assert not equal_weights(eager, base)
    assert first(eager)["loss"] == pytest.approx(first(base)["loss"], rel=1e-5)
    assert "attn_implementation" not in (eager.student_path / "config.json").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="attn_implementation: 'flash' is not one of auto, eager, sdpa"):
        distil(attn_implementation="flash")


def test_model_kwargs(distil: Distil, base: Any) -> None:
    """Dropout for the student alone, which keeps it; what the program sets, or a model does not know, is refused."""
    dropped = distil(model_kwargs={"student": {"resid_pdrop": 0.5}})
    assert read(dropped.student_path / "config.json")["resid_pdrop"] == 0.5
    assert read(base.student_path / "config.json")["resid_pdrop"] == 0.0
    assert not equal_weights(dropped, base)
    one, other = (manifest(run)["models"] for run in (dropped, base))
    assert one["teacher"]["fingerprint"] == other["teacher"]["fingerprint"]
    assert one["student"]["fingerprint"] != other["student"]["fingerprint"]
    # A teacher that computes otherwise teaches otherwise.
    taught = distil(model_kwargs={"teacher": {"scale_attn_weights": False}})
    assert first(taught)["soft_loss"] != pytest.approx(first(base)["soft_loss"], rel=1e-6)
    assert first(taught)["hard_loss"] == first(base)["hard_loss"]
    with pytest.raises(UsageError, match="dtype is set by the program") as caught:
        distil(model_kwargs={"teacher": {"dtype": "auto"}})
    assert "precision" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"cannot be loaded with model_kwargs \(no_such_thing\)"):
        distil(model_kwargs={"no_such_thing": 1})
    with pytest.raises(UsageError, match="what stands under 'teacher' is no mapping"):
        distil(model_kwargs={"teacher": 1})


def test_report_to(distil: Distil, base: Any) -> None:
    """tests/cli/test_trackers.py reads what each is told."""
    pytest.importorskip("tensorboard")
    result = distil(report_to="tensorboard")
    assert list((result.run_directory / "trackers" / "tensorboard").glob("events.out.tfevents.*"))
    assert not (base.run_directory / "trackers").exists()
    assert equal_weights(result, base)


# --- texts that the student writes itself -----------------------------------------------------------------------------

OWN = {"on_policy_fraction": 0.5, "on_policy_max_new_tokens": 8}


@pytest.fixture(scope="module")
def own(distil: Distil) -> Any:
    return distil(**OWN)


def test_on_policy_fraction(distil: Distil, base: Any, own: Any) -> None:
    """Steps 2 and 4 of 4, and step 4; the first step is that of the texts, as without."""
    for share, result, steps in ((0.5, own, [2, 4]), (0.25, distil(**OWN | {"on_policy_fraction": 0.25}), [4])):
        assert [line["step"] for line in lines(result, "on_policy_loss")] == steps
        assert [line["step"] for line in lines(result, "hard_loss")] == [
            step for step in (1, 2, 3, 4) if step not in steps
        ]
        assert result.metrics["on_policy"]["share"] == share
        assert first(result)["loss"] == first(base)["loss"]
        assert not equal_weights(result, base)
    assert "on_policy" not in base.metrics
    with pytest.raises(UsageError, match="--on-policy-fraction and --box-type black exclude each other"):
        distil(box_type="black", **OWN)


def test_on_policy_max_new_tokens(distil: Distil, own: Any) -> None:
    longer = distil(**OWN | {"on_policy_max_new_tokens": 16})
    for result, tokens in ((own, 8), (longer, 16)):
        figures = result.metrics["on_policy"]
        assert figures["texts"] * tokens >= figures["sampled_tokens"] > figures["texts"] * tokens * 0.8
    with pytest.raises(UsageError, match="--on-policy-max-new-tokens of --max-length or more exclude each other"):
        distil(**OWN | {"on_policy_max_new_tokens": 64})


def test_on_policy_temperature(distil: Distil, own: Any) -> None:
    assert not equal_weights(own, distil(on_policy_temperature=0.2, **OWN))


def test_replay_buffer(distil: Distil, own: Any) -> None:
    """The second on-policy step takes what was written for the first."""
    replayed = distil(replay_buffer=4, **OWN)
    assert (replayed.metrics["on_policy"]["replayed_steps"], replayed.metrics["on_policy"]["texts"]) == (1, 4)
    assert (own.metrics["on_policy"]["replayed_steps"], own.metrics["on_policy"]["texts"]) == (0, 8)
    with pytest.raises(UsageError, match="--replay-buffer 3 exclude each other: it holds fewer texts than a step"):
        distil(replay_buffer=3, **OWN)


def test_replay_fraction(distil: Distil) -> None:
    often = distil(replay_buffer=4, replay_fraction=0.75, epochs=2, **OWN)
    assert often.metrics["on_policy"]["steps"] == 4
    assert often.metrics["on_policy"]["replayed_steps"] == 3


# --- advanced --------------------------------------------------------------------------------------------------------


def test_allow_out_of_range(distil: Distil, base: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sample_size: 16 is outside its range") as caught:
        distil(allow_out_of_range=False, output_dir=tmp_path / "none")
    assert "--allow-out-of-range" in str(caught.value.hint)
    assert not (tmp_path / "none").exists()
    assert manifest(base)["config"]["sample_size"] == 16


def test_trust_remote_code(
    distil: Distil, pair: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    teacher = shutil.copytree(pair.teacher, tmp_path / "teacher")
    marker = tmp_path / "the code ran"
    (teacher / "own_model.py").write_text(
        f"from pathlib import Path\nfrom transformers import GPT2LMHeadModel\nPath({str(marker)!r}).touch()\n\n\n"
        "class OwnModel(GPT2LMHeadModel):\n    pass\n",
        encoding="utf-8",
    )
    config = read(teacher / "config.json") | {"auto_map": {"AutoModelForCausalLM": "own_model.OwnModel"}}
    (teacher / "config.json").write_text(json.dumps(config), encoding="utf-8")

    with pytest.raises(PreconditionError) as caught:
        distil(teacher_model_path=teacher)
    assert "--trust-remote-code" in str(caught.value.hint)
    assert not marker.exists()
    result = distil(teacher_model_path=teacher, trust_remote_code=True)
    assert marker.exists()
    assert manifest(result)["config"]["trust_remote_code"] is True


@pytest.fixture(scope="module")
def deep_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of five layers of which the third does nothing."""
    from tiny_models import save_model_folder, tiny_model, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    made: Any = tiny_model("gpt2", len(tokenizer), seed=1, eos_token_id=0, layers=5, hidden=32)
    with torch.no_grad():
        made.transformer.wte.weight.mul_(6)
        for number, block in enumerate(made.transformer.h):
            for projection in (block.attn.c_proj, block.mlp.c_proj):
                projection.weight.mul_(0 if number == 2 else 8)
    return save_model_folder(tmp_path_factory.mktemp("deep") / "teacher", made, tokenizer)


def test_layer_choice(distil: Distil, deep_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillkit.reports import plots

    write, drawn = plots.write_figure, ("layers", "throughput")  # of five: there is always a throughput
    monkeypatch.setattr(
        plots, "write_figure", lambda figure, folder, name: write(figure, folder, name) if name in drawn else []
    )
    found = {}
    for way in ("greedy", "influence", "perplexity", "contiguous", "even"):
        result = distil(
            teacher_model_path=deep_teacher,
            student_model="teacher:4",
            layer_choice=way,
            student_start="cut",
            save_plot=True,
        )
        cut = read(result.run_directory / "data" / "cut.json")
        assert (cut["way"], cut["layers"], len(cut["kept"])) == (way, 5, 4)
        assert manifest(result)["models"]["student"]["layers"] == cut["kept"]
        assert manifest(result)["stages"]["prepare-data"]["metrics"]["cut"]["layers"] == cut["kept"]
        assert (result.run_directory / "plots" / "layers.png").exists() == (way != "even")
        assert f"{', '.join(map(str, cut['kept']))} of 5" in (result.student_path / "README.md").read_text("utf-8")
        found[way] = cut["kept"]
    assert found["even"] == [0, 1, 3, 4]
    # What does nothing goes, as one layer and as a row of one; without it the loss is the teacher's.
    assert found["greedy"] == found["influence"] == found["contiguous"] == [0, 1, 3, 4]
    assert 2 not in found["perplexity"] or len(found["perplexity"]) == 4


def test_target_parameters(distil: Distil, deep_teacher: Path) -> None:
    """The student gets as large as it may be; more than the teacher's own number is refused."""
    counts = {}
    for target in (60_000, 75_000):
        result = distil(teacher_model_path=deep_teacher, student_model="teacher:auto", target_parameters=target)
        counts[target] = sum(value.numel() for value in weights(result).values())
        assert 0.85 * target <= counts[target] <= target
        assert read(result.run_directory / "data" / "cut.json")["shapes"]["target_parameters"] == target
    assert counts[60_000] < counts[75_000]
    with pytest.raises(UsageError, match="the teacher itself has"):
        distil(teacher_model_path=deep_teacher, student_model="teacher:auto", target_parameters=1_000_000)


def test_student_start(distil: Distil, deep_teacher: Path) -> None:
    runs = {
        start: distil(
            teacher_model_path=deep_teacher, student_model="teacher:0,1,4", student_start=start, skip_validation=False,
            quality_gate="off",
        )
        for start in ("fitted", "cut")
    }  # fmt: skip
    folder = runs["fitted"].run_directory / "data" / "start"
    assert (folder / "model.safetensors").is_file()
    assert not (runs["cut"].run_directory / "data" / "start").exists()
    teacher, start = load_file(deep_teacher / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = [name for name in start if not torch.equal(start[name], teacher[name.replace("h.2.", "h.4.")])]
    # The first layer is followed by the one that followed it; the others make up for what is missing.
    assert sorted(changed) == [
        f"transformer.h.{place}.{name}"
        for place in (1, 2)
        for name in ("attn.c_proj.weight", "mlp.c_proj.bias", "mlp.c_proj.weight")
    ]
    cut = read(runs["fitted"].run_directory / "data" / "cut.json")
    assert [fit["after"] < fit["before"] for fit in cut["fit"]["layers"] if "after" in fit] == [True, True]
    before = {name: lines(run, "eval_bits_per_byte")[0]["eval_bits_per_byte"] for name, run in runs.items()}
    assert before["fitted"] != before["cut"]
    # What is validated as the student before is what the training began with.
    for run in runs.values():
        own = read(run.run_directory / "validation.json")["before"]["bits_per_byte"]
        assert own != pytest.approx(read(run.run_directory / "validation.json")["teacher"]["bits_per_byte"], rel=1e-4)
    assert (
        read(runs["fitted"].run_directory / "validation.json")["before"]
        != (read(runs["cut"].run_directory / "validation.json")["before"])
    )


def test_temperature_schedule(
    distil: Distil, base: Any, pair: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    falling = distil(temperature_schedule="anneal")
    assert [line["temperature"] for line in lines(falling, "loss")] == pytest.approx([2, 5 / 3, 4 / 3, 1], abs=1e-5)
    assert not any("temperature" in line for line in lines(base, "loss"))
    assert first(falling)["loss"] == pytest.approx(first(base)["loss"], rel=1e-6)
    assert not equal_weights(falling, base)
    for line in lines(falling, "loss"):
        assert line["alpha"] == pytest.approx(0.7 / line["temperature"] ** 2, abs=1e-5)
        assert line["loss"] == pytest.approx(weighted(line, line["alpha"], 1 - line["alpha"]), rel=1e-4)
    # The last step is one at temperature 1, from where the others have led; a temperature of 1 has nowhere to fall.
    ones = [distil(temperature=1.0, temperature_schedule=kind) for kind in ("anneal", "constant")]
    assert equal_weights(*ones)
    across = {"student_model_path": pair.foreign_student, "config": _alignment(pair, "uld")}
    constant, annealed = (distil(temperature_schedule=kind, **across) for kind in ("constant", "anneal"))
    assert first(annealed)["soft_loss"] == pytest.approx(first(constant)["soft_loss"], rel=1e-6)
    assert not equal_weights(annealed, constant)
    with pytest.raises(UsageError, match="drawn from the teacher's distributions at one temperature"):
        distil(temperature_schedule="anneal", teacher_cache="sparse")
    distil(temperature_schedule="anneal", temperature=1.0, teacher_cache="sparse")
    capsys.readouterr()
    distil(temperature_schedule="anneal", temperature=1.0, quiet=False)
    assert "temperature_schedule has no effect here" in " ".join(capsys.readouterr().err.split())


def _alignment(pair: SimpleNamespace, name: str) -> Path:
    path = pair.root / f"{name}.yaml"
    path.write_text(f"alignment: {name}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("box_type", ["white", "black"])
def test_alpha_schedule(distil: Distil, box_type: str) -> None:
    constant, falling = (distil(box_type=box_type, alpha_schedule=kind) for kind in ("constant", "decay"))
    logged = lines(falling, "loss")
    alphas = [0.7 * (1 - step / (len(logged) - 1)) for step in range(len(logged))]
    assert [line["alpha"] for line in logged] == pytest.approx(alphas, abs=1e-5)
    for alpha, line in zip(alphas[:-1], logged, strict=False):
        assert line["loss"] == pytest.approx(weighted(line, alpha, 1 - alpha), rel=1e-5)
    assert "soft_loss" not in logged[-1]
    assert logged[-1]["loss"] == pytest.approx(logged[-1]["hard_loss"])
    assert first(falling)["loss"] == pytest.approx(first(constant)["loss"], rel=1e-6)
    assert not equal_weights(falling, constant)
    assert not any("alpha" in line for line in lines(constant, "loss"))
    # At first the teacher alone, and yet the true texts are there for the end.
    alone, both = (distil(box_type=box_type, alpha=1.0, alpha_schedule=kind) for kind in ("constant", "decay"))
    tempered = distil(box_type=box_type, alpha_schedule="tempered")
    if box_type == "black":
        assert equal_weights(tempered, constant)
    else:
        assert all(line["alpha"] == 0.175 for line in lines(tempered, "loss"))
        assert all(line["loss"] == pytest.approx(weighted(line, 0.175, 0.825)) for line in lines(tempered, "loss"))
    of_true_texts = 4 if box_type == "black" else 0
    assert both.metrics["train"]["steps"] == alone.metrics["train"]["steps"] + of_true_texts


def test_mix(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    paragraphs = pair.texts.read_text(encoding="utf-8").split("\n\n")
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"text": text.upper()}) + "\n" for text in paragraphs), encoding="utf-8")
    mixed = distil(dataset=None, dataset_path=None, mix=f"{pair.texts}:3,{other}:1")
    texts = example_column(mixed, "train", "text")
    assert sum(text.isupper() for text in texts) == 4 == len(texts) // 4
    sources = stats(mixed)["mix"]
    assert [source["splits"]["train"]["examples"] for source in sources] == [12, 4]
    assert [source["share"] for source in sources] == [0.75, 0.25]
    assert {"75 %", "25 %"} <= set(re.findall(r"\d+ %", stats(mixed)["source"]))
    with pytest.raises(UsageError, match="dataset_path and mix are both given"):
        distil(mix=f"{pair.texts}:3,{other}:1")
    with pytest.raises(UsageError, match="mix: two sources at least"):
        distil(dataset=None, dataset_path=None, mix=f"{other}:1")
    with pytest.raises(UsageError, match=r"absent\.jsonl"):
        distil(dataset=None, dataset_path=None, mix=f"{tmp_path / 'absent.jsonl'}:1,{other}:1")


def test_text_column(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    paragraphs = pair.texts.read_text(encoding="utf-8").split("\n\n")
    file = tmp_path / "two.jsonl"
    rows = [{"text": paragraph, "body": f"body {paragraph}"} for paragraph in paragraphs]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plain, body = distil(dataset_path=file), distil(dataset_path=file, text_column="body")
    assert not any(text.startswith("body ") for text in example_column(plain, "test", "text"))
    assert any(text.startswith("body ") for text in example_column(body, "test", "text"))
    with pytest.raises(UsageError, match="absent"):
        distil(dataset_path=file, text_column="absent")


def test_encoding(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    paragraphs = pair.texts.read_text(encoding="utf-8").replace("e", "é").split("\n\n")
    file = tmp_path / "old.csv"
    file.write_bytes(("id,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(paragraphs))).encode("cp1252"))
    with pytest.raises(UsageError, match="not valid UTF-8 at line 2") as raised:
        distil(dataset_path=file)
    assert "--encoding cp1252" in (raised.value.hint or "")
    assert any("é" in text for text in example_column(distil(dataset_path=file, encoding="cp1252"), "train", "text"))
    for impossible in ("cp12521", "rot13", "idna"):
        with pytest.raises(UsageError, match=f"encoding: '{impossible}' is no encoding"):
            distil(dataset_path=file, encoding=impossible, output_dir=tmp_path, folder_name="refused")
    assert not (tmp_path / "refused").exists()


def test_csv_delimiter(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    paragraphs = pair.texts.read_text(encoding="utf-8").replace(",", "").split("\n\n")
    file = tmp_path / "table.csv"
    file.write_text("".join(f"{text.strip()}, and so on.\n" for text in paragraphs), encoding="utf-8")
    with pytest.raises(UsageError, match="whether ',' parts cells"):
        distil(dataset_path=file)
    whole = distil(dataset_path=file, csv_delimiter="\t")
    assert any(text.endswith(", and so on.") for text in example_column(whole, "train", "text"))
    cut = distil(dataset_path=file, csv_delimiter=",", text_column="column1")
    assert not any("and so on" in text for text in example_column(cut, "train", "text"))
    for impossible in ("::", '"', "\n", "x"):
        with pytest.raises(UsageError, match="csv_delimiter"):
            distil(dataset_path=file, csv_delimiter=impossible, output_dir=tmp_path, folder_name="refused")
    assert not (tmp_path / "refused").exists()


def test_csv_quoting(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    paragraphs = pair.texts.read_text(encoding="utf-8").replace(",", "").replace('"', "").split("\n\n")
    file = tmp_path / "table.csv"
    rows = (f'{number},"{text.strip()}"\n' for number, text in enumerate(paragraphs))
    file.write_text("id,text\n" + "".join(rows), encoding="utf-8")
    plain, unquoted = distil(dataset_path=file), distil(dataset_path=file, csv_quoting="none")
    assert not any('"' in text for text in example_column(plain, "train", "text"))
    assert any('"' in text for text in example_column(unquoted, "train", "text"))


def test_csv_header(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    paragraphs = [text.strip() for text in pair.texts.read_text(encoding="utf-8").split("\n\n")]
    file = tmp_path / "table.tsv"
    file.write_text("Chapter One\n" + "\n".join(paragraphs), encoding="utf-8")
    with pytest.raises(UsageError, match=r"whether the first row .* names the columns"):
        distil(dataset_path=file)
    named, unnamed = (distil(dataset_path=file, csv_header=header) for header in ("present", "absent"))
    assert any("no row names the columns (column1)" in note for note in stats(unnamed)["notes"])
    assert any("first row names the columns" in note for note in stats(named)["notes"])


def chats_of(pair: SimpleNamespace, path: Path) -> Path:
    """A conversation for each paragraph of the texts, beside the paragraph itself."""
    paragraphs = pair.texts.read_text(encoding="utf-8").split("\n\n")
    rows = [
        {"text": text, "messages": [{"role": "user", "content": f"Part {n}?"}, {"role": "assistant", "content": text}]}
        for n, text in enumerate(paragraphs)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_data_format(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    file = chats_of(pair, tmp_path / "chats.jsonl")
    with pytest.raises(UsageError, match=r"not clear what is to be read: messages \(column messages\); column text"):
        distil(dataset_path=file)
    texts, chats = distil(dataset_path=file, data_format="text"), distil(dataset_path=file, data_format="messages")
    assert stats(texts)["reading"]["columns"] == {"chats.jsonl": {"column": "text", "why": "called text"}}
    assert stats(chats)["reading"]["formats"]["chats.jsonl"]["columns"] == {"turns": "messages"}
    assert stats(chats)["reading"]["first_conversation"][0] == ["user", "Part 0?"]
    report = manifest(chats)["stages"]["prepare-data"]["metrics"]["input_report"]
    assert report["format"] == "messages (column messages; called messages)"
    assert report["first row"].startswith("user “Part 0?”, assistant “")


def test_system_prompt(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    file = chats_of(pair, tmp_path / "chats.jsonl")
    result = distil(dataset_path=file, data_format="messages", system_prompt="Be brief.")
    assert stats(result)["reading"]["first_conversation"][:2] == [["system", "Be brief."], ["user", "Part 0?"]]
    with pytest.raises(UsageError, match=r"--system-prompt is for conversations, and chats\.jsonl:1 is a text"):
        distil(dataset_path=file, data_format="text", system_prompt="Be brief.")


def test_bad_rows(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    paragraphs = pair.texts.read_text(encoding="utf-8").split("\n\n")
    rows = [json.dumps({"text": paragraph}) for paragraph in paragraphs]
    few, many = tmp_path / "few.jsonl", tmp_path / "many.jsonl"
    few.write_text("\n".join([*rows * (-(-150 // len(rows))), '{"text": null}']), encoding="utf-8")
    many.write_text("\n".join([*rows, *['{"text": 7}'] * 9]), encoding="utf-8")
    assert distil(dataset_path=few).run_directory.is_dir()
    with pytest.raises(UsageError, match=r"few\.jsonl, row \d+ .*column 'text': null instead of text"):
        distil(dataset_path=few, bad_rows="stop")
    with pytest.raises(UsageError, match=r"many\.jsonl: 9 of \d+ rows hold no text .*the number 7"):
        distil(dataset_path=many)
    assert distil(dataset_path=many, bad_rows="skip-all").run_directory.is_dir()


@pytest.fixture(scope="session")
def chat_models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A teacher with `<|im_start|>` and `<|im_end|>`, students that have both, one, none, and rendered chats."""
    from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer, write_chats

    root = tmp_path_factory.mktemp("chat")

    def model(name: str, seed: int, vocabulary: int, **special: str) -> Path:
        tokenizer = tiny_tokenizer(vocabulary, **special)
        return save_model_folder(root / name, tiny_model("gpt2", vocabulary, layers=1, hidden=16, seed=seed), tokenizer)

    both = {"bos": "<|im_start|>", "pad": "<|im_end|>"}
    tokenizer = tiny_tokenizer(384, **both)
    return SimpleNamespace(
        teacher=save_model_folder(root / "teacher", teacher_of_letters(tokenizer), tokenizer),
        student=model("student", 2, 384, **both),
        one=model("one", 3, 320, pad="<|im_end|>"),
        none=model("none", 4, 300),
        chats=write_chats(root / "chats.jsonl", 60),
    )


def test_special_tokens(distil: Distil, chat_models: SimpleNamespace, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    models = {"teacher_model_path": chat_models.teacher, "dataset_path": chat_models.chats}

    def inside(result: Any, side: str) -> list[tuple[list[int], str, Any]]:
        """Of every training text what stands between its start and end, the text, and the tokenizer."""
        model = (
            chat_models.teacher
            if side == "teacher"
            else read(result.run_directory / "manifest.json")["config"]["student_model_path"]
        )
        tokenizer = AutoTokenizer.from_pretrained(model)
        columns = [example_column(result, "train", name) for name in (f"{side}_ids", f"{side}_tokens", "text")]
        return [(ids[1 : 1 + tokens], text, tokenizer) for ids, tokens, text in zip(*columns, strict=True)]

    for student in (chat_models.student, chat_models.one, chat_models.none):
        parsed = distil(**models, student_model_path=student)
        for side in ("student", "teacher"):
            for ids, text, tokenizer in inside(parsed, side):
                assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert stats(parsed)["special_tokens"]["decided"] == "parse"
        assert stats(parsed)["special_tokens"]["mode"] == "auto"
        assert set(stats(parsed)["special_tokens"]["names"]) == {"<|im_start|>", "<|im_end|>"}
        assert stats(parsed)["same_tokenizer"] is (student == chat_models.student)
        assert first(parsed)["soft_loss"] > 0
        # Names that only one model has as a token are no targets of the teacher's; all others are.
        if student != chat_models.student:
            assert 0.5 < stats(parsed)["alignment"]["positions_aligned"] < 1
    as_text = distil(**models, student_model_path=chat_models.one, special_tokens="text")
    assert stats(as_text)["special_tokens"]["decided"] == "text"
    for side in ("student", "teacher"):
        for ids, text, tokenizer in inside(as_text, side):
            assert ids == tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            assert set(ids).isdisjoint(tokenizer.all_special_ids)
    black = distil(**models, student_model_path=chat_models.none, box_type="black")
    assert stats(black)["special_tokens"]["decided"] == "parse"
    # In running text the end-of-text mark parts documents, unless names are text.
    parted = tmp_path / "parted.txt"
    lines = [json.loads(line)["text"].replace("<|im_", "(") for line in chat_models.chats.read_text().splitlines()]
    parted.write_text("\n<|endoftext|>\n".join(lines), encoding="utf-8")
    for mode, is_parted in (("auto", True), ("text", False)):
        result = distil(dataset_path=parted, special_tokens=mode)
        assert any("<|endoftext|>" in text for text in example_column(result, "train", "text")) is not is_parted
        # The file ends once; its documents all do.
        assert (sum(example_column(result, "train", "ends_text")) > 1) is is_parted


def test_held_out_size(distil: Distil, base: Any) -> None:
    result = distil(held_out_size=11)
    for part in ("validation", "test"):
        assert (stats(base)["splits"][part]["examples"], stats(result)["splits"][part]["examples"]) == (8, 11)
    assert stats(result)["splits"]["train"]["examples"] == 16


def test_seed(distil: Distil, base: Any) -> None:
    same, other = distil(seed=42), distil(seed=43)
    assert equal_weights(same, base)
    assert not equal_weights(other, base)
    assert example_column(other, "train", "text") != example_column(base, "train", "text")


def test_gradient_accumulation(distil: Distil, base: Any) -> None:
    result = distil(gradient_accumulation=2)
    assert result.metrics["train"]["steps"] == 2
    assert result.metrics["train"]["tokens"] == base.metrics["train"]["tokens"]


def test_precision(distil: Distil, base: Any) -> None:
    result = distil(precision="bf16")
    assert manifest(base)["device"]["precision"] == "fp32"
    assert manifest(result)["device"]["precision"] == "bf16"
    assert first(result)["loss"] != first(base)["loss"]
    assert first(result)["loss"] == pytest.approx(first(base)["loss"], rel=0.02)
    with pytest.raises(UsageError, match="--no-cuda and --precision fp16"):
        distil(precision="fp16", no_cuda=True)


def test_lr_schedule(distil: Distil, base: Any) -> None:
    def rates(run: Any) -> list[float]:
        return [line["learning_rate"] for line in lines(run, "loss")]

    constant, cosine = distil(lr_schedule="constant"), distil(lr_schedule="cosine")
    assert rates(base) == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert rates(constant) == pytest.approx([1e-3] * 4)
    assert rates(cosine) == pytest.approx([1e-3, 8.5355e-4, 5e-4, 1.4645e-4], rel=1e-3)


def test_warmup_fraction(distil: Distil, base: Any) -> None:
    result = distil(warmup_fraction=0.5)
    rates = [line["learning_rate"] for line in lines(result, "loss")]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1e-3)
    assert first(base)["learning_rate"] == pytest.approx(1e-3)


def test_quality_gate(distil: Distil) -> None:
    spoiled = {"learning_rate": 3.0, "skip_validation": False, "save_best_model": False}
    with pytest.raises(QualityGateError, match="the student is worse than before") as caught:
        distil(quality_gate="not-worse", **spoiled)
    assert caught.value.exit_code == 4
    assert caught.value.result.verdict == "worse"
    assert distil(quality_gate="off", **spoiled).verdict == "worse"


def test_lm_eval(distil: Distil, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it measures is in test_lm_eval.py, which needs its extra; here what is refused without it."""
    (tmp_path / "mine.yaml").write_text("task: mine\n", encoding="utf-8")
    given = {"lm_eval": str(tmp_path / "mine.yaml"), "output_dir": tmp_path / "runs", "folder_name": "run"}
    monkeypatch.setattr(installing, "is_satisfied", lambda requirement: not requirement.startswith("lm_eval"))
    with pytest.raises(PreconditionError, match="--lm-eval needs 'lm_eval>=") as caught:
        distil(**given, skip_validation=False, install_deps=False)
    assert "pip install 'lm_eval>=" in (caught.value.hint or "")
    assert not (tmp_path / "runs" / "run" / "data").exists()
    with pytest.raises(UsageError, match="--skip-validation and --lm-eval exclude each other"):
        distil(**given)
    for wrong, why in (("boolq,,arc_easy", "a task without a name"), ("boolq, boolq", "'boolq' is named twice")):
        with pytest.raises(UsageError, match=why):
            distil(lm_eval=wrong, skip_validation=False)


def test_datasets(distil: Distil) -> None:
    with pytest.raises(PreconditionError, match="someone/absent-texts"):
        distil(dataset="mine", datasets={"mine": {"id": "someone/absent-texts", "column": "body"}})
    with pytest.raises(UsageError, match=r"datasets\.mine: unknown key 'colum'"):
        distil(dataset="mine", datasets={"mine": {"id": "someone/absent-texts", "colum": "body"}})


# --- advanced --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def foreign(distil: Distil, pair: SimpleNamespace) -> Any:
    """A run across tokenizers with nothing but the small settings, to compare with."""
    return distil(student_model_path=pair.foreign_student)


def test_alignment(distil: Distil, base: Any, foreign: Any, pair: SimpleNamespace) -> None:
    found = {
        name: first(distil(student_model_path=pair.foreign_student, alignment=name))
        for name in ("bpm", "strict", "alm", "uld")
    }
    assert found["bpm"]["soft_loss"] == first(foreign)["soft_loss"]
    assert len({line["soft_loss"] for line in found.values()}) == 4
    assert all(line["hard_loss"] == pytest.approx(first(foreign)["hard_loss"], rel=1e-6) for line in found.values())
    # With one tokenizer the marginalisation is the plain divergence.
    assert first(distil(alignment="bpm"))["soft_loss"] == pytest.approx(first(base)["soft_loss"], rel=1e-3)


def test_prefix_map(distil: Distil, foreign: Any, pair: SimpleNamespace) -> None:
    canonical = distil(student_model_path=pair.foreign_student, prefix_map="canonical")
    assert first(canonical)["soft_loss"] != pytest.approx(first(foreign)["soft_loss"], rel=1e-5)
    assert first(canonical)["hard_loss"] == pytest.approx(first(foreign)["hard_loss"], rel=1e-6)


def test_divergence(distil: Distil, base: Any) -> None:
    names = declared.choices("divergence")
    found = {name: first(distil(divergence=name)) for name in names}
    assert found["forward-kl"]["soft_loss"] == first(base)["soft_loss"]
    assert len({line["soft_loss"] for line in found.values()}) == len(names)
    assert all(line["hard_loss"] == pytest.approx(first(base)["hard_loss"], rel=1e-6) for line in found.values())


def test_divergence_mix(distil: Distil, base: Any) -> None:
    # The generalised Jensen-Shannon divergence is about λ·KL for a small λ.
    small = first(distil(divergence="jsd", divergence_mix=0.001))["soft_loss"]
    assert small / 0.001 == pytest.approx(first(base)["soft_loss"], rel=0.1)
    assert (
        first(distil(divergence="jsd"))["soft_loss"] == first(distil(divergence="jsd", divergence_mix=0.5))["soft_loss"]
    )


def test_ab_alpha(distil: Distil, base: Any) -> None:
    assert first(distil(divergence="alpha-beta", ab_alpha=1.0, ab_beta=0.0))["soft_loss"] == pytest.approx(
        first(base)["soft_loss"], rel=1e-4
    )
    one, other = (first(distil(divergence="alpha-beta", ab_alpha=value)) for value in (0.2, 0.9))
    assert one["soft_loss"] != pytest.approx(other["soft_loss"], rel=1e-3)


def test_ab_beta(distil: Distil) -> None:
    reverse = first(distil(divergence="reverse-kl"))["soft_loss"]
    found = first(distil(divergence="alpha-beta", ab_alpha=0.0, ab_beta=1.0))["soft_loss"]
    assert found == pytest.approx(reverse, rel=1e-4)


def test_teacher_cache(distil: Distil, tmp_path: Path) -> None:
    # Runs of other files may have filled the cache of the usual folder, which `auto` would use.
    base = distil(output_dir=tmp_path / "alone")
    assert base.metrics["teacher_pass"]["cache_bytes"] == 0  # One epoch: nothing to gain.
    first_run, second_run = (distil(output_dir=tmp_path, teacher_cache="exact") for _ in range(2))
    pass_of = [result.metrics["teacher_pass"] for result in (first_run, second_run)]
    assert [found["cached_tokens"] for found in pass_of] == [0, pass_of[0]["tokens"]]
    assert pass_of[0]["cache_bytes"] == pass_of[0]["tokens"] * 32 * 4
    assert len([path for path in (tmp_path / ".teacher-cache").iterdir() if path.is_dir()]) == 1
    assert equal_weights(first_run, second_run)
    for cached, live in zip(lines(first_run, "loss"), lines(base, "loss"), strict=True):
        assert cached["loss"] == pytest.approx(live["loss"], rel=1e-5)
    repeated = distil(output_dir=tmp_path, epochs=2, temperature=3.0, alpha=0.4)
    assert repeated.metrics["teacher_pass"]["cached_tokens"] == pass_of[0]["tokens"]
    off = distil(output_dir=tmp_path, epochs=2, teacher_cache="off")
    assert off.metrics["teacher_pass"]["cache_bytes"] == 0
    with pytest.raises(UsageError, match="forward KL"):
        distil(teacher_cache="sparse", divergence="reverse-kl")


@pytest.mark.parametrize("foreign", [False, True])
def test_a_sparse_teacher_cache(
    distil: Distil, base: Any, tmp_path: Path, pair: SimpleNamespace, foreign: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = {"student_model_path": pair.foreign_student} if foreign else {}
    exact = distil(output_dir=tmp_path, teacher_cache="exact", **student)
    settings = {"output_dir": tmp_path, "teacher_cache": "sparse", **student}
    # A thousand draws, or all ids, are nearly the exact teacher.
    for method in ("sampling", "top-k"):
        near = distil(sparse_method=method, sparse_size=1024, **settings)
        assert first(near)["hard_loss"] == pytest.approx(first(exact)["hard_loss"], rel=1e-5)
        # The KL to a sample is on average larger than that to the whole; its gradient is not.
        near_enough = 0.02 if method == "top-k" else 0.25
        assert first(near)["soft_loss"] == pytest.approx(first(exact)["soft_loss"], rel=near_enough)
        if foreign:
            assert near.metrics["alignment"]["mass_mapped"] == pytest.approx(
                exact.metrics["alignment"]["mass_mapped"], rel=1e-6
            )
    # The second time, and with another learning rate, nothing is loaded but the cache.
    monkeypatch.setattr("distillkit.run.pair.ModelPair.load_teacher", lambda *_: pytest.fail("the teacher was loaded"))
    again = distil(sparse_method="top-k", sparse_size=1024, learning_rate=4e-4, **settings)
    assert again.metrics["teacher_pass"]["cached_tokens"] == again.metrics["teacher_pass"]["tokens"]


def test_sparse_method(distil: Distil, tmp_path: Path) -> None:
    runs = [distil(output_dir=tmp_path, teacher_cache="sparse", sparse_method=name) for name in ("sampling", "top-k")]
    assert not equal_weights(*runs)


def test_sparse_size(distil: Distil, tmp_path: Path) -> None:
    runs = [distil(output_dir=tmp_path, teacher_cache="sparse", sparse_size=size) for size in (8, 128)]
    small, large = (run.metrics["teacher_pass"]["cache_bytes"] for run in runs)
    assert 0 < small < large


def test_teacher_devices(
    distil: Distil, base: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GPUs that are said to be there, and are the processor."""
    from distillkit.models.placement import device_map
    from distillkit.teachers import spread
    from distillkit.teachers.choices import Room

    places: list[dict[str, int]] = []

    def on_the_processor(*given: Any) -> dict[str, str]:
        places.append(device_map(*given))
        return dict.fromkeys(places[-1], "cpu")

    monkeypatch.setattr(spread, "room_for", lambda *_: Room({0: 10**6, 1: 10**6}, 2, 10**5, 10**5))
    monkeypatch.setattr(spread, "device_map", on_the_processor)
    settings = {"quiet": False, "skip_validation": False, "quality_gate": "off"}
    several = distil(teacher_devices="all", output_dir=tmp_path, **settings)
    told = " ".join(capsys.readouterr().err.split())
    assert "the teacher is spread over 2 GPUs: 200 kB of 1.0 MB free on GPU 0, 100 kB of 1.0 MB free on GPU 1" in told
    assert equal_weights(several, base)
    assert len(places) == 2  # For the training, and to be measured.
    assert {name: place for name, place in places[0].items() if place} == {"transformer.h.1": 1}
    assert several.metrics["decisions"]["teacher_cache"] == "exact"  # It is read once.
    distil(teacher_devices="one", quiet=False)
    assert "spread" not in capsys.readouterr().err
    with pytest.raises(UsageError, match="there is no GPU 2"):
        distil(teacher_devices="0,2")
    with pytest.raises(UsageError, match="teacher_devices: 'both' is none of auto, one, all"):
        distil(teacher_devices="both")


def test_teacher_streaming(distil: Distil, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"epochs": 2, "skip_validation": False, "quality_gate": "off"}
    usual = distil(output_dir=tmp_path / "off", teacher_streaming="off", **settings)
    streamed = distil(output_dir=tmp_path / "on", teacher_streaming="on", quiet=False, **settings)
    assert "block by block: as --teacher-streaming says" in " ".join(capsys.readouterr().err.split())
    assert equal_weights(usual, streamed)
    for name in ("bits_per_byte", "size_bytes", "parameters"):
        assert streamed.teacher[name] == pytest.approx(usual.teacher[name], rel=1e-9)
    assert streamed.after["teacher_kl"] == pytest.approx(usual.after["teacher_kl"], rel=1e-6)
    assert streamed.teacher["generated_tokens_per_second"] is None
    # One epoch and sparse targets need what the teacher computes as well; the exact cache made for them does not stay.
    sparse = [
        distil(output_dir=tmp_path / f"sparse {mode}", teacher_cache="sparse", teacher_streaming=mode)
        for mode in ("off", "on")
    ]
    assert equal_weights(*sparse)
    kept = [path.name for path in (tmp_path / "sparse on" / ".teacher-cache").glob("*/meta.json")]
    assert len(kept) == 1
    once = distil(output_dir=tmp_path / "once", teacher_streaming="on")
    assert once.metrics["teacher_pass"]["cache_bytes"] > 0
    with pytest.raises(UsageError, match="exclude each other"):
        distil(teacher_cache="off", teacher_streaming="on")


def test_teacher_precision(distil: Distil, base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = distil(teacher_precision="int8")
    assert first(coarse)["soft_loss"] != first(base)["soft_loss"]
    assert first(coarse)["soft_loss"] == pytest.approx(first(base)["soft_loss"], rel=0.02)
    assert first(coarse)["hard_loss"] == first(base)["hard_loss"]
    # Its hidden states are others, so they have a cache of their own; block by block they are the same.
    fine, cached = (
        distil(output_dir=tmp_path, teacher_cache="exact", teacher_precision=kind) for kind in ("same", "int8")
    )
    assert cached.metrics["teacher_pass"]["cached_tokens"] == fine.metrics["teacher_pass"]["cached_tokens"] == 0
    streamed = distil(output_dir=tmp_path / "on", teacher_streaming="on", teacher_precision="int8")
    assert equal_weights(streamed, cached)
    monkeypatch.setattr("distillkit.device.precision.int8_problem", lambda device: "it is for the CPU, this is cuda")
    with pytest.raises(UsageError, match="int8 is not possible here: it is for the CPU"):
        distil(teacher_precision="int8")


def test_extra_teachers(distil: Distil, base: Any, pair: SimpleNamespace) -> None:
    both = distil(extra_teachers=str(pair.other_teacher))
    alone = distil(teacher_model_path=pair.other_teacher)
    softs = [first(result)["soft_loss"] for result in (base, alone, both)]
    # Before the first step: a divergence is convex, so the mixture is nearer than the teachers on average.
    assert softs[2] < (softs[0] + softs[1]) / 2
    assert [told["name"] for told in stats(both)["extra_teachers"]] == [str(pair.other_teacher)]
    models = manifest(both)["models"]
    assert models["extra_teachers"][0]["fingerprint"] == manifest(alone)["models"]["teacher"]["fingerprint"]


def test_teacher_weights(distil: Distil, base: Any, pair: SimpleNamespace) -> None:
    first_teacher, other = (
        first(distil(extra_teachers=str(pair.other_teacher), teacher_weights=weights))["soft_loss"]
        for weights in ("1000000,1", "1,1000000")
    )
    assert first_teacher == pytest.approx(first(base)["soft_loss"], rel=1e-4)
    assert other != pytest.approx(first_teacher, rel=1e-3)


def test_tune_teacher(distil: Distil, base: Any) -> None:
    tuned = distil(tune_teacher=8, teacher_cache="off", skip_validation=False)
    assert first(tuned)["hard_loss"] == pytest.approx(first(base)["hard_loss"], rel=1e-6)
    assert first(tuned)["soft_loss"] != pytest.approx(first(base)["soft_loss"], rel=1e-6)
    figures = tuned.metrics["teacher_tuning"]
    assert (figures["steps"], figures["best_step"]) == (8, 8)
    assert figures["after"] < figures["before"]
    assert tuned.tuned_teacher["bits_per_byte"] < tuned.teacher["bits_per_byte"]
    assert "teacher_tuning" not in base.metrics
    with pytest.raises(UsageError, match="--tune-teacher and --teacher-streaming on exclude each other"):
        distil(tune_teacher=8, teacher_streaming="on")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ChatServer, ChatServer]]:
    with ChatServer() as one, ChatServer() as other:
        yield one, other


def served(distil: Distil, server: ChatServer, **settings: Any) -> Any:
    return distil(teacher_model="openai:tiny", teacher_url=server.url, box_type="black", **settings)


def test_teacher_url(distil: Distil, servers: tuple[ChatServer, ChatServer], tmp_path: Path) -> None:
    one, other = servers
    for server in servers:
        served(distil, server, output_dir=tmp_path, folder_name="one" if server is one else "other")
    assert len(one.prompts) == len(other.prompts) == 16
    assert sorted(one.prompts) == sorted(other.prompts)
    # Another address of the same is no other run.
    served(distil, other, output_dir=tmp_path, folder_name="one")
    assert len(other.prompts) == 16
    with pytest.raises(UsageError, match="no address is given"):
        distil(teacher_model="openai:tiny", box_type="black")


def test_teacher_concurrency(distil: Distil, tmp_path: Path) -> None:
    for at_once in (1, 4):
        with ChatServer() as server:
            server.delay = lambda number: 0.05
            served(distil, server, output_dir=tmp_path / str(at_once), teacher_concurrency=at_once)
            assert server.most_at_once == at_once


def test_teacher_timeout(distil: Distil, tmp_path: Path) -> None:
    with ChatServer() as server:
        server.fail(sleep=3.0, body=b'{"choices": [{"text": "too late", "finish_reason": "stop"}]}')
        late = served(distil, server, output_dir=tmp_path, teacher_timeout=1.0)
        assert len(server.prompts) == 17
    assert "too late" not in (late.run_directory / "teacher" / "generated.jsonl").read_text(encoding="utf-8")


@pytest.mark.usefixtures("known_instructions")
def test_compile_loss(distil: Distil, base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiler_available(torch.device("cpu")):
        with pytest.raises(PreconditionError, match="no compiler"):
            distil(compile_loss="on")
        return
    # Two of the four steps, of which the second has other shapes: compiling takes longer than all else.
    compiled, eager = (lines(distil(compile_loss=how, max_steps=2), "loss") for how in ("on", "off"))
    assert len(compiled) == 2
    for fast, plain in zip(compiled, eager, strict=True):
        assert fast["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PreconditionError, match="no compiler"):
        distil(compile_loss="on")
    assert equal_weights(distil(), base)


def test_threads(distil: Distil, base: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The same student beyond the order of sums; a run that goes on says where it has another number."""
    two = distil(threads=2, quiet=False)
    assert "threads: 2, as --threads says\n" in capsys.readouterr().err
    assert manifest(two)["device"]["training_threads"] == 2
    for name, values in weights(two).items():
        torch.testing.assert_close(values, weights(base)[name], rtol=1e-4, atol=1e-5)
    longer = distil(run=two.run_directory, folder_name=None, epochs=2, threads=None, quiet=False)
    assert "threads: 2, as --threads says\n" in capsys.readouterr().err, "config.yaml keeps the number"
    assert longer.metrics["train"]["steps"] == 2 * two.metrics["train"]["steps"]
    distil(run=two.run_directory, folder_name=None, epochs=3, threads=1, quiet=False)
    assert "threads: 1, as --threads says; this run began with 2" in capsys.readouterr().err
    assert torch.get_num_threads() == 1


def test_the_hint_about_the_temperature(
    distil: Distil, pair: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings, hinted in (
        ({"alpha_schedule": "constant"}, True),
        ({}, False),
        ({"alpha_schedule": "constant", "temperature": 1.0}, False),
        ({"alpha_schedule": "constant", "alignment": "strict"}, False),
        ({"alpha_schedule": "constant", "student_model_path": pair.student}, False),
    ):
        distil(**({"student_model_path": pair.foreign_student, "quiet": False} | settings))
        assert ("--preset tuned" in " ".join(capsys.readouterr().err.split())) is hinted


def test_control(distil: Distil, base: Any) -> None:
    result = distil(control=True, skip_validation=False, quality_gate="off")
    plain = load_file(result.run_directory / "control" / "student" / "final" / "model.safetensors")
    assert equal_weights(result, base)
    untaught = weights(distil(alpha=0.0))
    assert all(torch.equal(plain[name], untaught[name]) for name in untaught)
    assert result.teacher_gain["bits_per_byte"] == pytest.approx(
        result.control["bits_per_byte"] - result.after["bits_per_byte"]
    )
    without = distil(control=False, skip_validation=False, quality_gate="off")
    assert without.control is without.teacher_gain is None
    assert not (without.run_directory / "control").exists()


# --- conversations ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    from conversation_runs import chat_models

    return chat_models(tmp_path_factory.mktemp("templates"))


def test_train_on(templates: SimpleNamespace, tmp_path: Path) -> None:
    from conversation_runs import prepared

    found = {mode: prepared(tmp_path / mode, templates, "same", train_on=mode) for mode in ("assistant", "all")}
    for mode, made in found.items():
        assert made.stats["conversations"]["train_on"] == mode
    sizes = {mode: made.stats["splits"]["train"]["bytes"] for mode, made in found.items()}
    assert sizes["all"] > 1.5 * sizes["assistant"]
    assert len({made.stats["splits"]["train"]["student_tokens"] for made in found.values()}) == 1


def test_chat_template(templates: SimpleNamespace, tmp_path: Path) -> None:
    from chat_templates import CHATML
    from conversation_runs import prepared

    file = tmp_path / "mine.jinja"
    file.write_text(CHATML.source.replace("helpful", "silent"), encoding="utf-8")
    told = prepared(tmp_path / "with", templates, "bare", chat_template=str(file)).stats["conversations"]["student"]
    assert (told["origin"], told["source"]) == ("file", file.read_text(encoding="utf-8"))
    assert prepared(tmp_path / "without", templates, "bare").stats["conversations"]["student"]["origin"] == "teacher"
    with pytest.raises(UsageError, match="both have one"):
        prepared(tmp_path / "both", templates, "same", chat_template=str(file))
    with pytest.raises(UsageError, match=r"absent\.jinja: No such file"):
        prepared(tmp_path / "absent", templates, "bare", chat_template=str(tmp_path / "absent.jinja"))


def written(result: Any, name: str = "generated") -> list[dict[str, Any]]:
    """The lines of what the teacher wrote."""
    return [json.loads(line) for line in (result.run_directory / "teacher" / f"{name}.jsonl").read_text().splitlines()]


def test_answers(distil: Distil, chat_models: SimpleNamespace, tmp_path: Path) -> None:
    models = {"teacher_model_path": chat_models.teacher, "student_model_path": chat_models.student}
    one = distil(**models, box_type="black")
    two = distil(**models, box_type="black", answers=2)
    assert len(written(two)) == 2 * len(written(one)) == 32
    assert "answer" not in written(one)[0]
    by_prompt: dict[int, list[str]] = {}
    for line in written(two):
        assert line["answer"] == len(by_prompt.setdefault(line["index"], []))
        by_prompt[line["index"]].append(line["continuation"])
    assert sum(first == second for first, second in by_prompt.values()) < 4
    assert two.metrics["teacher_texts"]["written"] == 32
    assert two.metrics["teacher_texts"]["kept"] > one.metrics["teacher_texts"]["kept"]
    with ChatServer() as server:
        asked = served(distil, server, output_dir=tmp_path, answers=2, folder_name="served")
        assert len(server.bodies) == 32
        assert len({(body["prompt"], body["seed"]) for body in server.bodies}) == 32
        with ChatServer() as single:
            served(distil, single, output_dir=tmp_path, folder_name="single")
            firsts = {body["seed"] for body in single.bodies}
            assert firsts < {body["seed"] for body in server.bodies}
    assert [line["answer"] for line in written(asked)] == [0, 1] * 16
    with pytest.raises(UsageError, match="all answers to a prompt are the same"):
        distil(box_type="black", answers=2, teacher_temperature=0.0)


def test_teacher_temperature(distil: Distil, chat_models: SimpleNamespace) -> None:
    models = {"teacher_model_path": chat_models.teacher, "student_model_path": chat_models.student}
    usual, greedy = (distil(**models, box_type="black", **given) for given in ({}, {"teacher_temperature": 0.4}))
    assert read(greedy.run_directory / "teacher" / "generated.settings.json")["temperature"] == 0.4
    assert read(usual.run_directory / "teacher" / "generated.settings.json")["temperature"] == 1.0
    assert [line["continuation"] for line in written(usual)] != [line["continuation"] for line in written(greedy)]


def test_teacher_top_p(distil: Distil, chat_models: SimpleNamespace) -> None:
    models = {"teacher_model_path": chat_models.teacher, "student_model_path": chat_models.student}
    usual, narrow = (distil(**models, box_type="black", **given) for given in ({}, {"teacher_top_p": 0.8}))
    assert read(narrow.run_directory / "teacher" / "generated.settings.json")["top_p"] == 0.8
    assert read(usual.run_directory / "teacher" / "generated.settings.json")["top_p"] == 0.95
    assert [line["continuation"] for line in written(usual)] != [line["continuation"] for line in written(narrow)]


def saying(text: str, finish: str = "stop") -> bytes:
    return json.dumps({"choices": [{"text": text, "finish_reason": finish}]}).encode()


def test_refusals(distil: Distil, tmp_path: Path) -> None:
    for policy, reason in (("keep", None), ("drop", "refusal")):
        with ChatServer() as server:
            server.fail(body=saying("I'm sorry, but I can't help with that."))
            result = served(distil, server, output_dir=tmp_path / policy, refusals=policy, teacher_concurrency=1)
        assert result.metrics["teacher_texts"]["dropped"].get("refusal", 0) == (reason is not None)
        assert written(result)[0]["kept"]
        if reason is not None:
            assert [line["reason"] for line in written(result, "answers")].index(reason) == 0


def test_cut_answers(distil: Distil, tmp_path: Path) -> None:
    for policy, count in (("keep", 0), ("drop", 1)):
        with ChatServer() as server:
            server.fail(body=saying("only half of", "length"))
            result = served(
                distil, server, output_dir=tmp_path / policy, cut_answers=policy, teacher_concurrency=1, max_length=64
            )
        cut = sum(line["finish"] == "length" and line["kept"] for line in written(result))
        assert cut >= 1
        assert result.metrics["teacher_texts"]["dropped"].get("cut", 0) == count * cut


def test_keep_answers(distil: Distil, tmp_path: Path) -> None:
    hook = tmp_path / "a judge.py"
    hook.write_text(
        "import json, sys\nfor line in sys.stdin:\n    row = json.loads(line)\n"
        "    assert row['known_answer'] and row['prompt'] and row['finish'] in ('eos', 'length')\n"
        "    print('keep' if 'lamp' in row['answer'] else 'drop no light')\n",
        encoding="utf-8",
    )
    found = {}
    for name, rule in (("pattern", "re:lamp"), ("program", f"run:'{sys.executable}' '{hook}'")):
        with ChatServer() as server:
            found[name] = served(distil, server, output_dir=tmp_path / name, keep_answers=rule)
        dropped = found[name].metrics["teacher_texts"]["dropped"]
        lines = written(found[name], "answers")
        assert (
            0
            < dropped[name]
            == sum("lamp" not in line["continuation"] for line in lines if line["reason"] != "duplicate")
        )
    assert {line["reason"] for line in lines if not line["kept"]} == {"program: no light"}
    assert equal_weights(found["pattern"], found["program"])
    for wrong, why in (
        ("lamp", "neither re:PATTERN nor run:COMMAND"),
        ("re:(", "no regular expression"),
        ("run:'x", "no command"),
    ):
        with pytest.raises(UsageError, match=why):
            distil(box_type="black", keep_answers=wrong)
    with pytest.raises(PreconditionError, match="no program 'no-such-program'"):
        distil(box_type="black", keep_answers="run:no-such-program")


def test_reasoning(distil: Distil, pair: SimpleNamespace, tmp_path: Path) -> None:
    file = chats_of(pair, tmp_path / "chats.jsonl")
    thought = tmp_path / "thought.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for turn in row["messages"]:
            if turn["role"] == "assistant":
                turn["content"] = f"<think>\nHm.\n</think>\n\n{turn['content']}"
    thought.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for mode, begins in (("keep", True), ("strip", False)):
        result = distil(dataset_path=thought, data_format="messages", reasoning=mode)
        assert stats(result)["reading"]["first_conversation"][1][1].startswith("<think>") is begins
