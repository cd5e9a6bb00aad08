"""Self-tests of the loss as it is trained: in chunks, with the head written out, compiled or not.

Each compares value and gradients with `selftests.formulas`.

Shapes: B texts, T positions, D student hidden size, V student columns, U teacher columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import aligned_rows
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import ROW_COLUMNS
from distillkit.losses.chunked import StudentOutput, chunked_loss
from distillkit.losses.linear_head import LinearHead
from distillkit.losses.sparse import SparseTargets
from distillkit.losses.target_rows import IGNORED
from distillkit.losses.tempered import SoftLoss
from distillkit.selftests.checking import require_close
from distillkit.selftests.formulas import SparseRow, TrainedRow, byte_prefix_target, objective
from distillkit.teachers.common_targets import CommonTokens
from distillkit.teachers.prefix_targets import BytePrefix
from distillkit.teachers.protocol import TargetMaker
from distillkit.training.objectives import SoftObjective, SoftSettings, Weights

_ALPHA, _BETA = 0.7, 0.3
_HIDDEN, _COLUMNS = 8, 24
# Of the largest number: rounding in float64, and in float32, the format that is compiled.
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}


def same_tokenizer(device: torch.device, *, compiled: bool) -> None:
    """With one tokenizer loss and gradients are those of the formula."""
    generator = torch.Generator().manual_seed(1)
    # More rows than a chunk has without a compiler, and padding.
    texts = [torch.randint(2, _COLUMNS, (length,), generator=generator).tolist() for length in (90, 70)]
    rows = [{"id": i, "student_ids": ids, "first_target": 1} for i, ids in enumerate(texts)]
    batch = DistillationCollator(white_box=True, aligned=False)(rows)
    # The teacher's head is wider than the vocabulary, and two ids mean something else to it.
    teacher = _GivenTeacher.drawn(batch["teacher_input_ids"].numel(), _COLUMNS + 5, generator)
    common = torch.ones(_COLUMNS, dtype=torch.bool)
    common[[3, 11]] = False
    probabilities = torch.softmax(teacher.logits[:, :_COLUMNS].masked_fill(~common, -torch.inf), -1)
    for temperature in (2.0,) if compiled else (1.0, 2.0):
        targets = CommonTokens(teacher.on(device, compiled), common)
        student = _Student(batch, generator, device, compiled)
        guided = dict(enumerate(probabilities))
        _compare(student, targets, batch, guided, temperature, compiled)


def across_tokenizers(device: torch.device, *, compiled: bool) -> None:
    """Across tokenizers loss and gradients are those of byte-prefix marginalisation, written down token by token."""
    generator = torch.Generator().manual_seed(2)
    examples = [_paired_text(index, *pieces) for index, pieces in enumerate(_SPELLINGS)]
    batch = DistillationCollator(white_box=True, aligned=True)(examples)
    width = batch["teacher_input_ids"].shape[1]
    teacher = _GivenTeacher.drawn(batch["teacher_input_ids"].numel(), len(_TEACHER), generator)
    guided: dict[int, Tensor] = {}
    for index, example in enumerate(examples):
        probabilities = torch.softmax(teacher.logits[index * width : (index + 1) * width], -1)
        for row, *place in zip(*(example[name] for name in ROW_COLUMNS), strict=True):
            following = example["student_ids"][row + 1]
            guided[index * batch["labels"].shape[1] + row] = byte_prefix_target(
                (_STUDENT, _TEACHER), probabilities, example["teacher_ids"], following, place
            )
    for temperature in (1.0,) if compiled else (1.0, 2.0):
        prefix_map = BytePrefixMap.build(_TEACHER, _STUDENT)
        targets = BytePrefix(teacher.on(device, compiled), prefix_map)
        student = _Student(batch, generator, device, compiled, columns=len(_STUDENT))
        _compare(student, targets, batch, guided, temperature, compiled)


def sparse(device: torch.device, *, compiled: bool) -> None:
    """With a few of the teacher's ids for each row loss and gradients are those of the formula."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, _COLUMNS, (2, 20), generator=generator)
    batch = DistillationCollator(white_box=True, aligned=False)(
        [{"id": i, "student_ids": row, "first_target": 1} for i, row in enumerate(ids.tolist())]
    )
    rows, targets = batch["target_rows"], batch["target_ids"]
    guided = torch.arange(0, len(rows), 2)
    sparse_rows = list(_sparse_rows(len(guided), generator))
    for temperature in (2.0,) if compiled else (1.0, 2.0):
        student = _Student(batch, generator, device, compiled)
        loss = chunked_loss(
            student.output, rows.to(device), targets.to(device),
            torch.full((len(rows),), _BETA, dtype=student.dtype, device=device),
            _stacked(guided, sparse_rows, student.dtype, device), SoftLoss(temperature),
            alpha=_ALPHA, divisor=torch.tensor(len(rows), device=device), chunk_rows=7, compile_kernels=compiled,
        ).loss  # fmt: skip
        teacher = dict(zip(rows[guided].tolist(), sparse_rows, strict=True))
        student.compare(loss, _expected(student, batch, teacher, temperature))


def _sparse_rows(count: int, generator: torch.Generator) -> Iterator[SparseRow]:
    """Samples, whose probabilities add up to 1, and likeliest ids with a tail, in turn."""
    for index in range(count):
        known = 2 + index % 3
        ids = torch.randperm(_COLUMNS, generator=generator)[:known]
        weights = torch.rand(known + 1, dtype=torch.float64, generator=generator) + 0.1
        shares = weights[:known] / (weights[:known].sum() if index % 2 else weights.sum())
        yield SparseRow(ids, shares, max(0.0, 1 - float(shares.sum())) if not index % 2 else 0.0)


def _stacked(rows: Tensor, sparse_rows: Sequence[SparseRow], dtype: torch.dtype, device: torch.device) -> SparseTargets:
    """As the sparse cache gives them: rows with fewer ids than others are filled up with id 0 and probability 0."""
    ids = nn.utils.rnn.pad_sequence([row.ids_K for row in sparse_rows], batch_first=True)
    probabilities = nn.utils.rnn.pad_sequence([row.probabilities_K for row in sparse_rows], batch_first=True)
    tails = torch.tensor([row.tail for row in sparse_rows], dtype=dtype)
    return SparseTargets(rows.to(device), ids.to(device), probabilities.to(device, dtype), tails.to(device))


# --- the two sides of a comparison -----------------------------------------------------------------------------------


class _Student:
    """Hidden states and a linear head, with the numbers of a random draw.

    Args:
        compiled: whether the format is the one that is compiled, fp32, or float64.
    """

    def __init__(
        self, batch: Mapping[str, Tensor], generator: torch.Generator, device: torch.device, compiled: bool,
        columns: int = _COLUMNS,
    ) -> None:  # fmt: skip
        self.dtype = torch.float32 if compiled else torch.float64
        shape = (*batch["labels"].shape, _HIDDEN)
        self.hidden_BTD = torch.randn(shape, dtype=self.dtype, generator=generator).to(device).requires_grad_()
        self.layer = nn.Linear(_HIDDEN, columns, device=device, dtype=self.dtype)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                drawn = torch.randn(parameter.shape, dtype=self.dtype, generator=generator)
                parameter.copy_(drawn)
        # What padding holds must not reach the loss.
        with torch.no_grad():
            self.hidden_BTD[batch["attention_mask"].to(device) == 0] = torch.nan
        parameters = tuple(self.layer.parameters())
        self.output = StudentOutput(self.hidden_BTD, self.layer, parameters, columns, LinearHead(self.layer))

    @property
    def trained(self) -> list[Tensor]:
        """Hidden states, weight and bias."""
        return [self.hidden_BTD, self.layer.weight, self.layer.bias]

    def compare(self, loss: Tensor, expected: tuple[Tensor, list[Tensor]]) -> None:
        """Fail unless `loss` and its gradients are the expected ones.

        Raises:
            CheckFailed: value or gradients are others.
        """
        tolerance = _TOLERANCES[self.dtype]
        require_close("loss", loss, expected[0], tolerance)
        names = ("gradient of the hidden states", "gradient of the head's weight", "gradient of the head's bias")
        gradients = torch.autograd.grad(loss, self.trained)
        for name, computed, wanted in zip(names, gradients, expected[1], strict=True):
            require_close(name, computed, wanted, tolerance)


@dataclass(frozen=True)
class _GivenTeacher:
    """A teacher of given hidden states, whose head is a matrix."""

    hidden_RD: Tensor
    head_UD: Tensor

    @classmethod
    def drawn(cls, rows: int, columns: int, generator: torch.Generator) -> _GivenTeacher:
        # What float32 can hold, so that both formats have the same numbers.
        draws = (torch.randn(size, _HIDDEN, generator=generator).double() for size in (rows, columns))
        return cls(*draws)

    @property
    def logits(self) -> Tensor:
        """[R, U] of all rows, float64."""
        return self.hidden_RD @ self.head_UD.T

    def on(self, device: torch.device, compiled: bool) -> _GivenTeacher:
        """The same numbers on a device, in the format of the comparison."""
        dtype = torch.float32 if compiled else torch.float64
        return _GivenTeacher(self.hidden_RD.to(device, dtype), self.head_UD.to(device, dtype))

    def hidden(self, batch: Mapping[str, Any]) -> Tensor:
        return self.hidden_RD

    def head(self, hidden_nD: Tensor) -> Tensor:
        return hidden_nD @ self.head_UD.T


def _compare(
    student: _Student, targets: TargetMaker, batch: dict[str, Any], guided: Mapping[int, Tensor], temperature: float,
    compiled: bool,
) -> None:  # fmt: skip
    """Compare the loss of a white-box run with the formula.

    Args:
        targets: of the teacher, as a run has them.
        guided: flat row of the student -> [V] the teacher's distribution there, by the formula.
    """
    device = student.hidden_BTD.device
    tested = SoftObjective(targets, SoftSettings(SoftLoss(temperature)))
    on_device = send_to_device({**batch, "prepared": tested.prepare(batch)}, device)
    divisor = 2 * batch["host"].targets  # This is half of an optimizer step.
    weights = Weights(_ALPHA, _BETA, torch.tensor(divisor, device=device), compile_kernels=compiled)
    loss = tested(student.output, on_device, weights).loss
    student.compare(loss, _expected(student, batch, guided, temperature, divisor=divisor))


def _expected(
    student: _Student, batch: Mapping[str, Tensor], teacher: Mapping[int, Any], temperature: float,
    divisor: int | None = None,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """The loss of the formula, and its gradients with respect to hidden states, weight and bias.

    Args:
        teacher: flat row of the student -> what the teacher says there.
        divisor: default: the targets of the batch.
    """
    hidden, weight, bias = (value.detach().cpu().double().requires_grad_() for value in student.trained)
    rows: list[TrainedRow] = []
    texts, length = batch["labels"].shape
    for text in range(texts):
        for position in range(length - 1):
            target = int(batch["labels"][text, position + 1])
            if target != IGNORED:
                logits = weight @ hidden[text, position] + bias
                rows.append(TrainedRow(logits, target, teacher.get(text * length + position)))
    value = objective(rows, _ALPHA, _BETA, temperature, len(rows) if divisor is None else divisor)
    return value, list(torch.autograd.grad(value, [hidden, weight, bias]))


# --- two tokenizers --------------------------------------------------------------------------------------------------

# (text as the student's tokens, the same text as the teacher's): tokens that end together, tokens that begin inside one of
# the teacher's, and tokens that go on beyond one of the teacher's and end inside the next.
_SPELLINGS = (
    (b"the| c|at| sat| on| the| m|at", b"th|e| cat| s|at| |on| the| mat"),
    (b"a| c|at| on", b"a| cat| o|n"),
)


def _table(spellings: Sequence[bytes]) -> TokenBytes:
    """End and start of text, then the tokens of the texts and their single bytes."""
    pieces = dict.fromkeys(piece for spelling in spellings for piece in spelling.split(b"|"))
    pieces |= dict.fromkeys(bytes([byte]) for spelling in spellings for byte in spelling if byte != ord("|"))
    return TokenBytes((None, None, *pieces), False, {0: "</s>", 1: "<s>"}, eos_id=0)


_STUDENT, _TEACHER = (_table(side) for side in zip(*_SPELLINGS, strict=True))


def _encoded(table: TokenBytes, spelling: bytes) -> Encoding:
    pieces = spelling.split(b"|")
    ends = np.cumsum([len(piece) for piece in pieces]).astype(np.int64)
    return Encoding([table.ids_by_bytes[piece] for piece in pieces], ends)


def _paired_text(index: int, student_spelling: bytes, teacher_spelling: bytes) -> dict[str, Any]:
    """An example as prepare-data writes it, with start and end of text on both sides."""
    student, teacher = _encoded(_STUDENT, student_spelling), _encoded(_TEACHER, teacher_spelling)
    rows = aligned_rows(
        student, teacher, student_spelling.replace(b"|", b""),
        student_start=True, teacher_start=True, student_has_eos=True, teacher_has_eos=True,
    )  # fmt: skip
    return {
        "id": index,
        "first_target": 1,
        "student_ids": [1, *student.ids, 0],
        "teacher_ids": [1, *teacher.ids, 0],
        **{name: getattr(rows, name).tolist() for name in ROW_COLUMNS},
    }
