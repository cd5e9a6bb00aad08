"""The whole loss across tokenizers, from a batch to a number, against loops over tokens in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from drawn_vocabularies import TEXT, random_tokens, vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import LEAD, AlignedRows, aligned_rows
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import ROW_COLUMNS
from distillkit.losses.chunked import StudentOutput
from distillkit.losses.tempered import SoftLoss
from distillkit.teachers.prefix_targets import BytePrefix
from distillkit.training.objectives import SoftObjective, SoftSettings, Weights


@dataclass
class Said:
    """A teacher whose logits are given."""

    logits: torch.Tensor

    def hidden(self, batch: object) -> torch.Tensor:
        return self.logits

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def longest_prefix(student: TokenBytes, rest: bytes) -> int | None:
    fitting = [
        (len(piece), index)
        for index, piece in enumerate(student.pieces)
        if piece and rest.startswith(piece) and index not in student.shadowed
    ]
    return max(fitting)[1] if fitting else None


def naive_target(
    teacher: TokenBytes, student: TokenBytes, p: torch.Tensor, t_ids: list[int], s_next: int, row: tuple[int, ...]
) -> torch.Tensor:
    """[V] what the teacher says at one row, said in the student's tokens; zeros: nothing."""
    t_row, skip, e_row, e_skip = row
    met = t_ids[t_row + 1]
    target = torch.zeros(len(student), dtype=torch.float64)
    onward = 1.0
    for later in range(t_row + 1, e_row + 1):
        following = t_ids[later + 1] if later + 1 < len(t_ids) else -1
        if later < e_row:
            onward *= float(p[later, following])
        elif e_skip > 0:
            begun = (teacher.pieces[following] or b"")[:e_skip]
            onward *= sum(
                float(p[later, u]) for u, piece in enumerate(teacher.pieces) if piece and piece.startswith(begun)
            )
    for u, piece in enumerate(teacher.pieces):
        if skip == 0 and u == teacher.eos_id:
            place = student.eos_id
        elif not piece:
            continue
        elif skip == LEAD:
            place = longest_prefix(student, b" " + piece)
        else:
            begun = (teacher.pieces[met] or b"")[:skip]
            place = longest_prefix(student, piece[skip:]) if piece.startswith(begun) else None
        mass = float(p[t_row, u])
        if u == met:  # As far as it leads to the student's next token it is that token's.
            target[s_next] += mass * onward
            mass -= mass * onward
        if place is not None:
            target[place] += mass
    total = target.sum()
    return target / total if total > 0 else target


def naive_loss(
    tables: tuple[TokenBytes, TokenBytes], ids: tuple[list[int], list[int]], found: AlignedRows, z: torch.Tensor,
    teacher_logits: torch.Tensor, alpha: float, tau: float,
) -> torch.Tensor:  # fmt: skip
    (student, teacher), (s_ids, t_ids) = tables, ids
    p = torch.softmax(teacher_logits, -1)
    loss = torch.zeros((), dtype=torch.float64)
    for s_row in range(len(s_ids) - 1):
        loss = loss - (1 - alpha) * torch.log_softmax(z[s_row], -1)[s_ids[s_row + 1]]
    columns = (found.student_rows, found.teacher_rows, found.skips, found.end_rows, found.end_skips)
    for s_row, *row in zip(*(column.tolist() for column in columns), strict=True):
        target = naive_target(teacher, student, p, t_ids, s_ids[s_row + 1], tuple(row))
        if target.sum() == 0:
            continue
        tempered = target ** (1 / tau) / (target ** (1 / tau)).sum()
        log_q = torch.log_softmax(z[s_row] / tau, -1)
        possible = tempered > 0
        loss = loss + alpha * tau**2 * (tempered * (tempered.log() - log_q))[possible].sum()
    return loss / (len(s_ids) - 1)


@settings(max_examples=80, deadline=None)
@given(
    s_table=vocabularies(), t_table=vocabularies(), text=TEXT.map(str.encode).filter(bool),
    seed=st.integers(0, 2**31), tau=st.sampled_from([1.0, 2.0]), scale=st.sampled_from([0.3, 3.0]),
)  # fmt: skip
def test_loss_and_gradient_against_loops(s_table, t_table, text, seed, tau, scale):
    student, teacher = random_tokens(s_table, text, seed), random_tokens(t_table, text, seed + 1)
    s_ids, t_ids = [1, *student.ids, 0], [1, *teacher.ids, 0]
    found = aligned_rows(
        student, teacher, text, student_start=True, teacher_start=True, student_has_eos=True, teacher_has_eos=True
    )
    row = {"id": 0, "first_target": 1, "student_ids": s_ids, "teacher_ids": t_ids}
    row |= {name: getattr(found, name) for name in ROW_COLUMNS}
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator) * scale

    z = random(1, len(s_ids), len(s_table)).requires_grad_()
    said = Said(random(len(t_ids), len(t_table)))
    targets = BytePrefix(said, BytePrefixMap.build(t_table, s_table))
    objective = SoftObjective(targets, SoftSettings(SoftLoss(tau)))
    batch = DistillationCollator(white_box=True, aligned=True, prepare=objective.prepare)([row])
    output = StudentOutput(z, lambda hidden: hidden, (), len(s_table))
    terms = objective(output, batch, Weights(0.7, 0.3, torch.tensor(batch["host"].targets)))
    expected = naive_loss((s_table, t_table), (s_ids, t_ids), found, z[0], said.logits, 0.7, tau)
    torch.testing.assert_close(terms.loss, expected, rtol=1e-8, atol=1e-10)
    (ours,), (theirs,) = torch.autograd.grad(terms.loss, [z]), torch.autograd.grad(expected, [z])
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


def test_the_rows_are_of_every_kind():
    """What the test above draws does contain rows inside teacher tokens, leading spaces and crossings."""
    student = TokenBytes(
        (None, None, b"a", b"b", b"ab", b" ", b" a", b"ba"), True, {0: "</s>", 1: "<s>"}, frozenset(), eos_id=0
    )
    teacher = TokenBytes((None, None, b"a", b"b", b" ", b"aba"), False, {0: "</s>", 1: "<s>"}, frozenset(), eos_id=0)
    kinds = set()
    for seed in range(40):
        text = b"ababa ab"
        found = aligned_rows(
            random_tokens(student, text, seed), random_tokens(teacher, text, seed + 1), text,
            student_start=True, teacher_start=True, student_has_eos=True, teacher_has_eos=True,
        )  # fmt: skip
        kinds |= {"lead" for skip in found.skips if skip == LEAD} | {"inside" for skip in found.skips if skip > 0}
        kinds |= {"crossing" for one, end in zip(found.teacher_rows, found.end_rows, strict=True) if end > one + 1}
        kinds |= {"ends inside" for skip in found.end_skips if skip > 0}
    assert kinds == {"lead", "inside", "crossing", "ends inside"}
    assert isinstance(random_tokens(student, b"a", 0), Encoding)
