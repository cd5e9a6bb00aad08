"""Byte-prefix marginalisation on vocabularies small enough to check by hand and by brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from distillkit.alignment.bpm import AlignedRows, BytePrefixMap, aligned_rows
from distillkit.alignment.token_bytes import Encoding, TokenBytes

TEACHER = TokenBytes(
    (b"a", b"ab", b"abc", b"b", b" the", b"\xf0\x9f", None, None), specials={6: "</s>", 7: "<x>"}, eos_id=6
)
STUDENT = TokenBytes(
    (None, b"a", b"ab", b" ", b"a", b"b", b" t", b"\xf0"), specials={0: "<eos>"}, shadowed=frozenset({1}), eos_id=0
)


def encoding(table: TokenBytes, ids: list[int], dummy_space: bool = False) -> Encoding:
    ends = np.cumsum([len(table.pieces[index] or b"") for index in ids], dtype=np.int64)
    return Encoding(ids, np.maximum(ends - int(dummy_space), 0), dummy_space)


def pieces(*spelled: bytes, dummy_space: bool = False) -> Encoding:
    return encoding(TokenBytes(spelled), list(range(len(spelled))), dummy_space)


def rows(student: Encoding, teacher: Encoding, text: bytes, **options: bool) -> AlignedRows:
    settings = {"student_start": True, "teacher_start": True, "student_has_eos": True, "teacher_has_eos": True}
    return aligned_rows(student, teacher, text, **(settings | options))


def pairs(found: AlignedRows) -> list[tuple[int, int]]:
    return list(zip(found.student_rows.tolist(), found.teacher_rows.tolist(), strict=True))


def test_the_longest_prefix_that_the_student_writes():
    table = BytePrefixMap.build(TEACHER, STUDENT)
    # The twin at id 1 is shadowed, so `a` is id 4; ` the` begins with ` t`; EOS to EOS, other specials to nothing.
    assert table.student_ids.tolist() == [4, 2, 2, 5, 6, 7, 0, 8]
    assert table.residual_id == 8


def test_eos_is_residual_where_it_is_not_trained_or_absent():
    assert BytePrefixMap.build(TEACHER, STUDENT, map_eos=False).student_ids[6] == 8
    assert BytePrefixMap.build(TEACHER, dataclasses.replace(STUDENT, eos_id=None)).student_ids[6] == 8


def test_no_prefix_is_residual():
    lacking = TokenBytes((b"a",))
    table = BytePrefixMap.build(TEACHER, lacking)
    assert table.student_ids.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_projection_by_hand():
    table = BytePrefixMap.build(TEACHER, STUDENT)
    probabilities = torch.tensor([[0.1, 0.2, 0.3, 0.05, 0.05, 0.1, 0.1, 0.1]], dtype=torch.float64)
    found = table.project(probabilities.log())
    assert found.residual.item() == pytest.approx(0.1)
    expected = torch.tensor([[0.1, 0, 0.5, 0, 0.1, 0.05, 0.05, 0.1]], dtype=torch.float64) / 0.9
    torch.testing.assert_close(found.log_target.exp(), expected)
    assert found.log_target[0, [1, 3]].tolist() == [-torch.inf, -torch.inf]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_padded_heads_get_nothing(dtype):
    table = BytePrefixMap.build(TEACHER, STUDENT)
    logits = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    padded = torch.cat([logits, torch.full((5, 3), 50.0, dtype=dtype)], dim=1)
    plain, wide = table.project(logits), table.project(padded, columns=12)
    assert plain.log_target.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(wide.log_target[:, :8], plain.log_target)
    assert wide.log_target[:, 8:].isneginf().all()
    torch.testing.assert_close(wide.residual, plain.residual)


def test_a_head_narrower_than_its_tokenizer_makes_the_rest_residual():
    table = BytePrefixMap.build(TEACHER, STUDENT)
    logits = torch.zeros(1, 8, dtype=torch.float64)
    found = table.project(logits, columns=6)
    # ` t` (6), 0xF0 (7) and the unmapped special: 3 of 8 teacher tokens.
    assert found.residual.item() == pytest.approx(3 / 8)
    narrow_teacher = table.project(logits[:, :4])
    assert narrow_teacher.residual.item() == 0
    assert narrow_teacher.log_target.exp().sum().item() == pytest.approx(1)


def test_a_row_without_any_mapped_mass_has_no_target():
    table = BytePrefixMap.build(TEACHER, STUDENT)
    logits = torch.full((1, 8), -torch.inf)
    logits[0, 7] = 0
    found = table.project(logits)
    assert found.residual.item() == 1
    assert found.log_target.isneginf().all()


def test_nan_is_not_hidden():
    table = BytePrefixMap.build(TEACHER, STUDENT)
    assert table.project(torch.full((1, 8), torch.nan)).log_target.isnan().any()


def test_extreme_logits_stay_finite_or_exactly_zero():
    table = BytePrefixMap.build(TEACHER, STUDENT)
    logits = torch.tensor([[1e4, -1e4, 0.0, 1e4, -torch.inf, 3.0, -1e4, -1e4]])
    found = table.project(logits)
    torch.testing.assert_close(found.log_target.exp()[0, [4, 5]], torch.tensor([0.5, 0.5]))
    assert not found.log_target.isnan().any()


def test_rows_of_two_tokenisations():
    # bytes:          0    3     6   7
    student = pieces(b"the", b" ca", b"t", b"s")
    teacher = pieces(b"the", b" cat", b"s")
    found = rows(student, teacher, b"the cats")
    assert pairs(found) == [(0, 0), (1, 1), (3, 2), (4, 3)]
    assert (found.positions, found.positions_aligned) == (5, 4)
    assert (found.bytes, found.bytes_aligned) == (8, 3 + 3 + 1)


def test_rows_without_start_tokens_shift_by_one():
    student, teacher = pieces(b"the", b" ca", b"t", b"s"), pieces(b"the", b" cat", b"s")
    neither = rows(student, teacher, b"the cats", student_start=False, teacher_start=False)
    assert pairs(neither) == [(0, 0), (2, 1), (3, 2)]
    assert (neither.positions, neither.bytes, neither.bytes_aligned) == (4, 5, 4)
    only_student = rows(student, teacher, b"the cats", teacher_start=False)
    assert pairs(only_student) == [(1, 0), (3, 1), (4, 2)]
    assert only_student.positions == 5


def test_a_student_token_that_crosses_the_teachers_is_masked():
    student, teacher = pieces(b"the", b" cats"), pieces(b"the", b" cat", b"s")
    assert pairs(rows(student, teacher, b"the cats")) == [(0, 0), (2, 3)]


@pytest.mark.parametrize(("student_eos", "teacher_eos"), [(True, False), (False, True), (False, False)])
def test_the_end_of_the_text_needs_two_trained_eos(student_eos, teacher_eos):
    student = teacher = pieces(b"a", b"b")
    found = rows(student, teacher, b"ab", student_has_eos=student_eos, teacher_has_eos=teacher_eos)
    assert pairs(found) == [(0, 0), (1, 1)]
    assert found.positions == 2 + student_eos


@pytest.mark.parametrize("run", [b"  ", b"\n\n", b" \t", b"\r\n", b"\n "])
def test_runs_of_white_space_are_masked(run):
    text = b"a" + run + b"b c"
    same = pieces(b"a", run, b"b", b" ", b"c")
    # The row after `a` (1) is about the run; a single space (row 3) is fine.
    assert pairs(rows(same, same, text)) == [(0, 0), (2, 2), (3, 3), (4, 4), (5, 5)]


def test_one_white_space_at_the_end_is_no_run():
    same = pieces(b"a", b"\n")
    assert pairs(rows(same, same, b"a\n")) == [(0, 0), (1, 1), (2, 2)]


def test_a_dummy_space_on_one_side_masks_the_first_row_only():
    student, teacher = pieces(b" the", b" cat", dummy_space=True), pieces(b"the", b" cat")
    assert pairs(rows(student, teacher, b"the cat")) == [(1, 1), (2, 2)]
    assert pairs(rows(teacher, student, b"the cat")) == [(1, 1), (2, 2)]
    assert pairs(rows(student, student, b"the cat")) == [(0, 0), (1, 1), (2, 2)]
    assert pairs(rows(teacher, teacher, b"the cat")) == [(0, 0), (1, 1), (2, 2)]


def test_a_dummy_space_that_is_a_token_of_its_own_is_behind_us_once_read():
    student, teacher = pieces(b" ", b"1", b"a", dummy_space=True), pieces(b"1", b"a")
    assert pairs(rows(student, teacher, b"1a")) == [(1, 0), (2, 1), (3, 2)]
    # Without a start token, the student still has a row at byte 0: the one that read the space.
    assert pairs(rows(student, teacher, b"1a", student_start=False)) == [(0, 0), (1, 1), (2, 2)]


def test_a_dummy_space_before_white_space_is_a_run():
    both = pieces(b" \n", b"a", dummy_space=True)
    assert pairs(rows(both, both, b"\na")) == [(1, 1), (2, 2)]


def test_empty_text():
    nothing = pieces()
    assert pairs(rows(nothing, nothing, b"")) == [(0, 0)]
    found = rows(nothing, nothing, b"", student_start=False, teacher_start=False)
    assert (pairs(found), found.positions, found.bytes) == ([], 0, 0)


def test_a_character_split_differently():
    # An emoji: the student has it whole, the teacher in two parts; the student's token crosses.
    student, teacher = pieces(b"a", b"\xf0\x9f\x98\x80", b"b"), pieces(b"a", b"\xf0\x9f\x98", b"\x80", b"b")
    text = "a😀b".encode()
    assert pairs(rows(student, teacher, text)) == [(0, 0), (2, 3), (3, 4)]
    # The other way round the first part is a prefix of the whole, and the second part has no partner.
    assert pairs(rows(teacher, student, text)) == [(0, 0), (1, 1), (3, 2), (4, 3)]
