"""The self-tests of `check-env --run-tests`: they pass here, and a fault in any path that trains makes one of them fail."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.console import Console
from distillkit.device.precision import Compute
from distillkit.losses import chunked
from distillkit.losses.linear_head import LinearHead
from distillkit.losses.tempered import SoftLoss
from distillkit.selftests.runner import SelfTestError, run_self_tests
from distillkit.training import checkpoints, tied_embedding
from distillkit.training.trainer import DistillTrainer

PLAIN = Compute(torch.device("cpu"), None, torch.float32)
BF16 = Compute(torch.device("cpu"), torch.bfloat16, torch.bfloat16)
ONE, ACROSS, SPARSE = "With one tokenizer", "Across tokenizers", "a few of the teacher's ids"
TRAINER, CHECKPOINT = "the trainer gives", "committed checkpoint"
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")


def random_states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()


def test_they_pass_and_leave_the_random_states_alone(capfd: pytest.CaptureFixture[str]) -> None:
    before = random_states()
    assert run_self_tests(Console(quiet=True), PLAIN) == 5
    assert run_self_tests(Console(quiet=True), BF16) == 6
    assert random_states() == before
    assert capfd.readouterr().out == ""


@needs_compiler
@pytest.mark.usefixtures("known_instructions")
def test_they_pass_compiled() -> None:
    assert run_self_tests(Console(quiet=True), PLAIN, compile_loss="on") == 8


# --- faults ----------------------------------------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]


def kernel(name: str, change: Callable[[torch.Tensor, Any], Any]) -> Patch:
    """A kernel whose logits (the gradient by then) and results are changed."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        true = getattr(chunked, name)

        def faulty(logits: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            return change(logits, true(logits, *arguments, **options))

        monkeypatch.setattr(chunked, name, faulty)

    return patch


def negated(logits: torch.Tensor, results: Any) -> Any:
    logits.neg_()
    return results


def without_true_token(logits: torch.Tensor, results: Any) -> Any:
    """The gradient at the true token, which is the last result, is lost."""
    return (*results[:-1], torch.zeros_like(results[-1]))


def double_divergence(logits: torch.Tensor, results: Any) -> Any:
    return (results[0], 2 * results[1], *results[2:])


def method(owner: Any, name: str, faulty: Callable[..., Any]) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        true = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *arguments, **options: faulty(true, *arguments, **options))

    return patch


def untempered(true: Callable[..., Any], self: Any, soft: SoftLoss, sums: Any) -> Any:
    """α instead of α·τ."""
    softness, temperature, tempered = true(self, soft, sums)
    return softness / temperature, temperature, tempered


def always_the_first_place(true: Callable[..., Any], self: LinearHead, parameter: Any, dtype: torch.dtype) -> Any:
    """The second micro-batch of a step overwrites what the first has left in `.grad`."""
    return self._buffers.take(f"sum {id(parameter)}", parameter.shape, dtype, parameter.device)


def half_a_step(true: Callable[..., Any], self: Any, batches: list[Any], device: torch.device) -> torch.Tensor:
    """The targets of one micro-batch instead of those of the step."""
    return true(self, batches[:1], device)


def nothing(true: Callable[..., Any], *arguments: Any) -> None:
    return None


def rows_lost(true: Callable[..., Any], ctx: Any, *gradients: Any) -> Any:
    """The gradient of a tied embedding is left out."""
    return (None if ctx.weight.grad is not None else torch.zeros_like(ctx.weight)), None, None


FAULTS: dict[str, tuple[Patch, str]] = {
    "a sign in the dense kernel": (kernel("forward_kl_rows", negated), ONE),
    "the value of the dense kernel": (kernel("forward_kl_rows", double_divergence), ONE),
    "the true token in the dense kernel": (kernel("forward_kl_rows", without_true_token), ONE),
    "a sign in the kernel of rows without a teacher": (kernel("hard_rows", negated), SPARSE),
    "a sign in the sparse kernel": (kernel("sparse_kl_rows", negated), SPARSE),
    "the value of the sparse kernel": (kernel("sparse_kl_rows", double_divergence), SPARSE),
    "the temperature in the gradient": (method(chunked._Pass, "_softness", untempered), ONE),
    "the head's gradient of the hidden states": (
        method(LinearHead, "backward", lambda true, *arguments: 1.01 * true(*arguments)),
        ONE,
    ),
    "the head's gradient of its weight": (
        method(LinearHead, "_add_weight_gradient", lambda true, self, weight, gradient: true(self, weight, 2 * gradient)),
        ONE,
    ),
    "the probability of what the text shows": (
        lambda monkeypatch: monkeypatch.setattr(BytePrefixMap, "_move", staticmethod(lambda *arguments: None)),
        ACROSS,
    ),
    "micro-batches": (method(LinearHead, "_place", always_the_first_place), TRAINER),
    "the targets of a step": (method(DistillTrainer, "_get_num_items_in_batch", half_a_step), TRAINER),
    "the tied embedding": (
        lambda monkeypatch: monkeypatch.setattr(
            tied_embedding._Rows, "backward", staticmethod(lambda *a: rows_lost(nothing, *a))
        ),
        TRAINER,
    ),
    "checkpoints that are not checked": (method(checkpoints, "problem", nothing), CHECKPOINT),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_what_trains_is_reported(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, title = FAULTS[fault]
    patch(monkeypatch)
    with pytest.raises(SelfTestError, match="self-test failed") as raised:
        run_self_tests(Console(quiet=True), PLAIN)
    assert title in raised.value.message
    assert "Compiled" not in raised.value.message


def test_a_fault_in_bf16_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is converted for the products in bf16 is another weight than the one that is trained."""
    true = LinearHead._converted

    def faulty(self: LinearHead, name: str, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        found = true(self, name, values, dtype)
        return found if found is values else found * 1.5

    monkeypatch.setattr(LinearHead, "_converted", faulty)
    assert run_self_tests(Console(quiet=True), PLAIN) == 5
    with pytest.raises(SelfTestError, match=r"In bf16\."):
        run_self_tests(Console(quiet=True), BF16)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "title"), [("forward_kl_rows", ONE), ("hard_rows", SPARSE), ("sparse_kl_rows", SPARSE)]
)
def test_a_fault_of_the_compiler_is_reported(name: str, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        def generated(logits: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            results = function(logits, *arguments, **options)
            return negated(logits, results) if function.__name__ == name else results

        return generated

    monkeypatch.setattr(chunked, "compiled", compiled)
    monkeypatch.setattr("distillkit.selftests.runner.compile_failure", lambda *arguments: None)
    with pytest.raises(SelfTestError, match="Compiled") as raised:
        run_self_tests(Console(quiet=True), PLAIN, compile_loss="auto")
    assert title in raised.value.message


def test_a_crash_is_a_failed_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*arguments: Any) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(chunked, "forward_kl_rows", lambda *arguments, **options: crash())
    with pytest.raises(SelfTestError, match="no such instruction") as raised:
        run_self_tests(Console(quiet=True), PLAIN)
    assert ONE in raised.value.message
    assert raised.value.exit_code == 1


@needs_compiler
def test_without_a_compiler_that_works_the_compiled_loss_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("distillkit.selftests.runner.compile_failure", lambda *arguments: "ld is missing")
    assert run_self_tests(Console(), PLAIN, compile_loss="auto") == 5
    assert "ld is missing" in capsys.readouterr().err
