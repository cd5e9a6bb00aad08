"""ALM, ULD and the strict divergence, from a batch to a number, against loops over tokens in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from drawn_vocabularies import TEXT, random_tokens, vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_sentencepiece_tokenizer, tiny_tokenizer

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.first_token import canonical_first, exact_twin, longest_prefix
from distillkit.alignment.rows import aligned_rows
from distillkit.alignment.token_bytes import token_bytes
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import ROW_COLUMNS
from distillkit.losses.chunked import StudentOutput
from distillkit.losses.tempered import SoftLoss
from distillkit.losses.uld import UniversalLogitLoss
from distillkit.teachers.prefix_targets import BytePrefix
from distillkit.training.aligned_objectives import LikelihoodMatching, OwnColumns
from distillkit.training.objectives import Objective, SoftObjective, SoftSettings, Weights

ALPHA, BETA = 0.6, 0.4


@dataclass
class Said:
    """A teacher whose logits are given."""

    logits: torch.Tensor

    def hidden(self, batch: object) -> torch.Tensor:
        return self.logits

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class Case:
    """A text in two random segmentations, with random logits of both models."""

    def __init__(self, s_table: Any, t_table: Any, text: bytes, seed: int) -> None:
        student, teacher = random_tokens(s_table, text, seed), random_tokens(t_table, text, seed + 1)
        self.s_ids, self.t_ids = [1, *student.ids, 0], [1, *teacher.ids, 0]
        found = aligned_rows(
            student, teacher, text, student_start=True, teacher_start=True, student_has_eos=True, teacher_has_eos=True
        )
        columns = (found.student_rows, found.teacher_rows, found.skips, found.end_rows, found.end_skips)
        self.rows = list(zip(*(column.tolist() for column in columns), strict=True))
        row = {"id": 0, "first_target": 1, "student_ids": self.s_ids, "teacher_ids": self.t_ids}
        row |= {name: getattr(found, name) for name in ROW_COLUMNS}
        self.row = row
        generator = torch.Generator().manual_seed(seed)
        size = (1, len(self.s_ids), len(s_table))
        self.z = torch.randn(size, dtype=torch.float64, generator=generator).requires_grad_()
        self.said = Said(torch.randn(len(self.t_ids), len(t_table), dtype=torch.float64, generator=generator))

    def check(self, objective: Objective, soft: torch.Tensor) -> None:
        """Value and gradient of the objective are those of α·soft + β·CE over the targets."""
        output = StudentOutput(self.z, lambda hidden: hidden, (), self.z.shape[2])
        batch = DistillationCollator(white_box=True, aligned=True, prepare=objective.prepare)([self.row])
        found = objective(output, batch, Weights(ALPHA, BETA, torch.tensor(batch["host"].targets))).loss
        hard = -sum(self.student_log(index) for index in range(len(self.s_ids) - 1))
        expected = (ALPHA * soft + BETA * hard) / (len(self.s_ids) - 1)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
        (ours,), (theirs,) = torch.autograd.grad(found, [self.z]), torch.autograd.grad(expected, [self.z])
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)

    def student_log(self, row: int) -> Any:
        return torch.log_softmax(self.z[0, row], -1)[self.s_ids[row + 1]]

    def teacher_log(self, row: int) -> float:
        return float(torch.log_softmax(self.said.logits[row], -1)[self.t_ids[row + 1]])


CASES = {
    "s_table": vocabularies(),
    "t_table": vocabularies(),
    "text": TEXT.map(str.encode).filter(bool),
    "seed": st.integers(0, 2**31),
}


@settings(max_examples=60, deadline=None)
@given(**CASES)
def test_likelihood_matching(s_table, t_table, text, seed):
    case = Case(s_table, t_table, text, seed)
    total = torch.zeros((), dtype=torch.float64)
    index = 0
    while index < len(case.rows):
        s_row, t_row, skip, *_ = case.rows[index]
        last = index
        while last + 1 < len(case.rows) and case.rows[last + 1][2] != 0:
            last += 1
        stretch = case.rows[index : last + 1]
        _, _, _, e_row, e_skip = stretch[-1]
        gapless = [row[0] for row in stretch] == list(range(s_row, s_row + len(stretch)))
        if skip == 0 and gapless and e_skip == 0:
            teacher = sum(case.teacher_log(row) for row in range(t_row, e_row))
            student = sum(case.student_log(row[0]) for row in stretch)
            a, b = math.exp(teacher / 100 - 1e-6), torch.exp(student / 100 - 1e-6)
            total = total + 100 * (a * torch.log(a / b) + (1 - a) * torch.log((1 - a) / (1 - b)))
        index = last + 1
    case.check(LikelihoodMatching(case.said, len(t_table)), total)


@settings(max_examples=60, deadline=None)
@given(tau=st.sampled_from([1.0, 3.0]), **CASES)
def test_universal_logits(s_table, t_table, text, seed, tau):
    case = Case(s_table, t_table, text, seed)
    total = torch.zeros((), dtype=torch.float64)
    for s_row, t_row, skip, *_ in case.rows:
        if skip == 0:
            p = torch.softmax(case.said.logits[t_row] / tau, -1).sort(descending=True).values
            q = torch.softmax(case.z[0, s_row] / tau, -1).sort(descending=True).values
            both = min(len(p), len(q))
            # What one of them has more is compared with nothing.
            total = total + (p[:both] - q[:both]).abs().sum() + p[both:].sum() + q[both:].sum()
    case.check(SoftObjective(OwnColumns(case.said, len(t_table)), SoftSettings(UniversalLogitLoss(tau))), total)


@settings(max_examples=60, deadline=None)
@given(tau=st.sampled_from([1.0, 3.0]), **CASES)
def test_strict(s_table, t_table, text, seed, tau):
    case = Case(s_table, t_table, text, seed)
    twins = {t_table.eos_id: s_table.eos_id}
    for index, piece in enumerate(t_table.pieces):
        same = [
            at for at, other in enumerate(s_table.pieces) if piece and other == piece and at not in s_table.shadowed
        ]
        twins |= {index: same[0]} if same else {}
    total = torch.zeros((), dtype=torch.float64)
    for s_row, t_row, skip, e_row, e_skip in case.rows:
        if (skip, e_row, e_skip) != (0, t_row + 1, 0):
            continue
        p = torch.softmax(case.said.logits[t_row], -1)
        target = torch.zeros(len(s_table), dtype=torch.float64)
        for here, there in twins.items():
            target[there] += p[here]
        if target.sum() == 0:
            continue
        tempered = (target / target.sum()) ** (1 / tau)
        tempered = tempered / tempered.sum()
        log_q = torch.log_softmax(case.z[0, s_row] / tau, -1)
        possible = tempered > 0
        total = total + tau**2 * (tempered * (tempered.log() - log_q))[possible].sum()
    prefix_map = BytePrefixMap.build(t_table, s_table, first=exact_twin(s_table))
    targets = BytePrefix(case.said, prefix_map, only="twins", realised=False)
    case.check(SoftObjective(targets, SoftSettings(SoftLoss(tau))), total)


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_the_canonical_first_token_is_the_tokenizers_own(kind, tmp_path):
    tokenizer = tiny_tokenizer() if kind == "byte-level" else tiny_sentencepiece_tokenizer(tmp_path)
    table = token_bytes(tokenizer)
    words = [" the", " lamp", " carried", ",", " 17", "“", "\n", " harbour"]
    found = canonical_first(table, tokenizer)([word.encode() for word in words])
    longest = longest_prefix(table)([word.encode() for word in words])
    for word, index, by_length in zip(words, found, longest, strict=True):
        # In the middle of a text, between a letter and a full stop, as far as the tokenizer does not merge them.
        ids = tokenizer.encode(f"x{word}", add_special_tokens=False)
        before = len(tokenizer.encode("x", add_special_tokens=False))
        assert index == ids[before], word
        assert word.encode().startswith(table.pieces[by_length])
        assert len(table.pieces[by_length]) >= len(table.pieces[index])
    # Half a character is no text: its longest prefix stands for it.
    assert canonical_first(table, tokenizer)([b"\xf0\x9f"]).tolist() == longest_prefix(table)([b"\xf0\x9f"]).tolist()
