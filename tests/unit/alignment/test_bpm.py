"""Byte-prefix marginalisation on vocabularies small enough to check by hand and by brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from distillkit.alignment.bpm import BytePrefixMap, Realised
from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import LEAD, AlignedRows, aligned_rows, crossing, twins, within
from distillkit.alignment.token_bytes import TokenBytes

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
    """The rows on shared boundaries whose next token stays within the teacher's."""
    keep = within(found.teacher_rows, found.skips, found.end_rows, found.end_skips)
    return list(zip(found.student_rows[keep].tolist(), found.teacher_rows[keep].tolist(), strict=True))


def places(found: AlignedRows) -> list[tuple[int, ...]]:
    columns = (found.student_rows, found.teacher_rows, found.skips, found.end_rows, found.end_skips)
    return list(zip(*(column.tolist() for column in columns), strict=True))


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
    assert (found.positions, found.positions_aligned) == (5, 5)
    assert (found.bytes, found.bytes_aligned) == (8, 8)


def test_rows_without_start_tokens_shift_by_one():
    student, teacher = pieces(b"the", b" ca", b"t", b"s"), pieces(b"the", b" cat", b"s")
    neither = rows(student, teacher, b"the cats", student_start=False, teacher_start=False)
    assert pairs(neither) == [(0, 0), (2, 1), (3, 2)]
    assert (neither.positions, neither.bytes, neither.bytes_aligned) == (4, 5, 5)
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
def test_runs_of_white_space_are_masked_unless_both_write_the_same(run):
    text = b"a" + run + b"b c"
    same = pieces(b"a", run, b"b", b" ", b"c")
    other = pieces(b"a", *(bytes([byte]) for byte in run), b"b", b" ", b"c")
    assert pairs(rows(same, same, text)) == [(row, row) for row in range(6)]
    # The row after `a` (1) is about the run, and so are those in it; a single space (row 3) is fine.
    found = rows(same, other, text)
    assert found.student_rows.tolist() == [0, 2, 3, 4, 5]
    assert found.teacher_rows.tolist() == [0, *range(1 + len(run), 5 + len(run))]


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
    student = pieces(b" \n", b"a", dummy_space=True)
    teacher = pieces(b" ", b"\n", b"a", dummy_space=True)
    assert pairs(rows(student, student, b"\na")) == [(0, 0), (1, 1), (2, 2)]
    assert pairs(rows(student, teacher, b"\na")) == [(1, 2), (2, 3)]


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


def test_rows_inside_a_teacher_token_and_across_its_end():
    inside = rows(pieces(b"the", b" ca", b"t", b"s"), pieces(b"the", b" cat", b"s"), b"the cats")
    assert places(inside) == [(0, 0, 0, 1, 0), (1, 1, 0, 1, 3), (2, 1, 3, 2, 0), (3, 2, 0, 3, 0), (4, 3, 0, 4, 0)]
    assert (inside.positions_aligned, inside.positions_on_boundaries, inside.bytes_aligned) == (5, 4, 8)
    across = rows(pieces(b"the", b" cats"), pieces(b"the", b" cat", b"s"), b"the cats")
    assert places(across) == [(0, 0, 0, 1, 0), (1, 1, 0, 3, 0), (2, 3, 0, 4, 0)]
    ends = (across.teacher_rows, across.end_rows, across.end_skips)
    assert crossing(*ends).tolist() == [False, True, False]
    assert twins(across.teacher_rows, across.skips, across.end_rows, across.end_skips).tolist() == [True, False, True]


def test_a_space_that_only_the_student_writes():
    student, teacher = pieces(b" the", dummy_space=True), pieces(b"the")
    assert places(rows(student, teacher, b"the"))[0] == (0, 0, LEAD, 1, 0)


def project_one(prefix: bytes, realised: tuple[int, int, float] | None, lead: bool = False) -> torch.Tensor:
    table = BytePrefixMap.build(TEACHER, STUDENT)
    probabilities = torch.tensor([[0.1, 0.2, 0.3, 0.05, 0.05, 0.1, 0.1, 0.1]], dtype=torch.float64)
    met = None
    if realised is not None:
        teacher_id, student_id, onward = realised
        met = Realised(torch.tensor([teacher_id]), torch.tensor([student_id]), torch.tensor([onward]))
    restrictions = [(0, table.restriction(prefix, lead=lead))] if prefix or lead else []
    return table.project(probabilities.log(), restrictions=restrictions, realised=met).log_target.exp()[0]


def test_inside_a_token_only_what_goes_on_with_it_can_follow():
    # After `a`: nothing left of `a` itself (residual), `b` of `ab`, `b` (of `bc`) of `abc`.
    assert project_one(b"a", None).tolist() == pytest.approx([0, 0, 0, 0, 0, 1, 0, 0])
    # ` the` after its space: nothing of the student's begins with `t`.
    assert project_one(b" ", None).tolist() == pytest.approx([0] * 8)


def test_a_space_to_come_stands_before_every_ordinary_token():
    # Every ordinary teacher token makes the student write a space first; ` the` two of them.
    assert project_one(b"", None, lead=True).tolist() == pytest.approx([0, 0, 0, 1, 0, 0, 0, 0])


def test_the_token_that_is_met_goes_where_the_text_goes():
    # The teacher meets `abc` (0.3, mapped to `ab`), but this student writes `a` first.
    expected = torch.tensor([0.1, 0, 0.2, 0, 0.4, 0.05, 0.05, 0.1], dtype=torch.float64) / 0.9
    torch.testing.assert_close(project_one(b"", (2, 4, 1.0)), expected)
    # The teacher meets `a` (0.1) and goes on as the student's `ab` with probability 0.4.
    expected = torch.tensor([0.1, 0, 0.54, 0, 0.06, 0.05, 0.05, 0.1], dtype=torch.float64) / 0.9
    torch.testing.assert_close(project_one(b"", (0, 2, 0.4)), expected)
