"""Self-tests that come with the package: does this installation compute, train and save as it should?

`distillkit check-env --run-tests` runs them; they need neither network nor test tools and take a few seconds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillkit.console import Console
from distillkit.data.batching import DistillationCollator
from distillkit.errors import DistillkitError
from distillkit.interrupts import check_interrupted
from distillkit.losses.target_rows import DistillationTerms, combine, same_vocabulary_terms, target_rows
from distillkit.losses.tempered import SoftLoss
from distillkit.storage import write_folder
from distillkit.training import checkpoints

_TOLERANCE = 1e-9


class SelfTestError(DistillkitError):
    """A self-test failed: this installation cannot be trusted (exit code 1)."""


def run_self_tests(console: Console) -> int:
    """Run them all.

    Returns:
        How many passed.

    Raises:
        SelfTestError: one did not; names it.
    """
    with console.progress("self-tests", total=len(_TESTS), unit="tests") as progress, torch.random.fork_rng():
        for test in _TESTS:
            check_interrupted()
            torch.manual_seed(0)
            try:
                test()
            except AssertionError as error:
                what = (test.__doc__ or test.__name__).splitlines()[0]
                raise SelfTestError(
                    f"self-test failed: {what} {error}".strip(), hint="reinstall distillkit and torch, then try again"
                ) from error
            progress.advance()
    return len(_TESTS)


def _require(holds: bool, words: str) -> None:
    # Not an `assert` statement, which python -O leaves out.
    if not holds:
        raise AssertionError(f"({words})")


def _terms(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float) -> DistillationTerms:
    common = torch.ones(student.shape[-1], dtype=torch.bool)
    return same_vocabulary_terms(student, labels, teacher, common, soft=SoftLoss(temperature))


def _identical_distributions_have_no_divergence() -> None:
    """The divergence of identical distributions is zero."""
    logits = torch.randn(2, 7, 11, dtype=torch.float64)
    labels = torch.randint(0, 11, (2, 7))
    value = float(_terms(logits, logits.clone(), labels, 2.0).soft_sum)
    _require(abs(value) < _TOLERANCE, f"{value}")


def _loss_equals_the_formula() -> None:
    """The loss is τ²·Σ KL and Σ cross-entropy over unmasked rows, as written down by hand."""
    student, teacher = torch.randn(2, 2, 5, 7, dtype=torch.float64)
    labels = torch.randint(0, 7, (2, 5))
    labels[0, 3:] = -100
    terms = _terms(student, teacher, labels, 3.0)
    soft = hard = 0.0
    for text in range(2):
        for row in range(4):
            target = int(labels[text, row + 1])
            if target == -100:
                continue
            p, q = torch.softmax(teacher[text, row] / 3, 0), torch.softmax(student[text, row] / 3, 0)
            soft += 9 * float((p * (p / q).log()).sum())
            hard -= float(torch.softmax(student[text, row], 0)[target].log())
    _require(abs(float(terms.soft_sum) - soft) < 1e-8, f"soft {float(terms.soft_sum)} instead of {soft}")
    _require(abs(float(terms.hard_sum) - hard) < 1e-8, f"hard {float(terms.hard_sum)} instead of {hard}")


def _gradient_equals_the_formula() -> None:
    """The gradient is (β·(softmax(z) - onehot(y)) + α·τ·(q_τ - p_τ)) / N."""
    student = torch.randn(1, 4, 6, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 4, 6, dtype=torch.float64)
    labels = torch.randint(0, 6, (1, 4))
    rows, targets = target_rows(labels)
    combine(_terms(student, teacher, labels, 2.0), 0.7, 0.3, len(rows)).backward()
    with torch.no_grad():
        z, t = student[0, rows], teacher[0, rows]
        onehot = nn.functional.one_hot(targets, 6)
        wanted = 0.3 * (z.softmax(-1) - onehot) + 0.7 * 2 * ((z / 2).softmax(-1) - (t / 2).softmax(-1))
        found = student.grad[0, rows] if student.grad is not None else torch.zeros_like(wanted)
    _require(bool((found - wanted / len(rows)).abs().max() < _TOLERANCE), "another gradient")


def _accumulation_changes_nothing() -> None:
    """Two micro-batches give the loss of one batch."""
    student, teacher = torch.randn(2, 2, 6, 9, dtype=torch.float64)
    labels = torch.randint(0, 9, (2, 6))
    labels[1, 2:] = -100
    count = len(target_rows(labels)[0])
    whole = float(combine(_terms(student, teacher, labels, 2.0), 0.7, 0.3, count))
    parts = sum(
        float(combine(_terms(student[i : i + 1], teacher[i : i + 1], labels[i : i + 1], 2.0), 0.7, 0.3, count))
        for i in range(2)
    )
    _require(abs(whole - parts) < _TOLERANCE, f"{parts} instead of {whole}")


def _tiny_pair() -> tuple[nn.Module, nn.Module]:
    from transformers import LlamaConfig, LlamaForCausalLM

    def model(hidden: int) -> nn.Module:
        config = LlamaConfig(
            vocab_size=32, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32,
        )  # fmt: skip
        return LlamaForCausalLM(config)

    return model(32).eval(), model(16)


def _a_student_learns() -> None:
    """A tiny student comes closer to its teacher."""
    teacher, student = _tiny_pair()
    rows = [{"id": i, "student_ids": torch.randint(0, 32, (12,)).tolist(), "first_target": 1} for i in range(8)]
    batch: dict[str, Any] = DistillationCollator(white_box=True, aligned=False)(rows)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    losses = []
    with torch.no_grad():
        teacher_logits = 4 * teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for _ in range(30):
        logits = student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        terms = _terms(logits, teacher_logits, batch["labels"], 2.0)
        loss = combine(terms, 1.0, 0.0, batch["host"].targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    _require(losses[-1] < 0.5 * losses[0], f"from {losses[0]:.3f} to {losses[-1]:.3f}")


def _a_checkpoint_round_trip() -> None:
    """A committed checkpoint is whole, loads to the same weights, and a damaged one is noticed."""
    from safetensors.torch import load_file, save_file

    _, student = _tiny_pair()
    weights = {name: value.clone() for name, value in student.state_dict().items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = checkpoints.checkpoint_folder(Path(temporary), 1)

        def fill(target: Path) -> None:
            save_file(weights, target / "model.safetensors")
            for name in checkpoints.REQUIRED:
                (target / name).write_text(name)
            checkpoints.commit(target, 1, "self-test")

        write_folder(folder, fill)
        _require(checkpoints.problem(folder) is None, f"{checkpoints.problem(folder)}")
        loaded = load_file(folder / "model.safetensors")
        _require(all(torch.equal(loaded[name], value) for name, value in weights.items()), "other weights")
        with (folder / "model.safetensors").open("r+b") as stream:
            stream.seek(-1, 2)
            stream.write(b"\xff")
        _require(checkpoints.problem(folder) is not None, "the damage went unnoticed")


_TESTS: tuple[Callable[[], None], ...] = (
    _identical_distributions_have_no_divergence,
    _loss_equals_the_formula,
    _gradient_equals_the_formula,
    _accumulation_changes_nothing,
    _a_student_learns,
    _a_checkpoint_round_trip,
)
