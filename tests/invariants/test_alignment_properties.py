"""Properties of the alignment that must hold for any vocabularies and any text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_vocabularies import TEXT, random_tokens, vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_objective import cross_vocabulary_terms, same_vocabulary_terms

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import LEAD, aligned_rows
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.losses.tempered import SoftLoss

SPACES = b" \t\n\r\v\f"


def read_after(table: TokenBytes, encoding: Encoding, count: int) -> bytes:
    return b"".join(table.pieces[index] or b"" for index in encoding.ids[:count])


def tokens_read(rows: np.ndarray, has_start: bool) -> np.ndarray:
    return rows + 1 - int(has_start)


def spelled(table: TokenBytes, encoding: Encoding, begin: tuple[int, int], end: tuple[int, int]) -> bytes:
    """What a reading spells from one (tokens read, bytes into the next) to another."""
    (first, skip), (last, rest) = begin, end
    whole = b"".join(table.pieces[index] or b"" for index in encoding.ids[first:last])
    part = (table.pieces[encoding.ids[last]] or b"")[:rest] if rest else b""
    return b" " + whole + part if skip == LEAD else (whole + part)[skip:]


@settings(max_examples=300, deadline=None)
@given(
    s_table=vocabularies(),
    t_table=vocabularies(),
    text=TEXT.map(str.encode),
    seed=st.integers(0, 2**31),
    flags=st.tuples(*[st.booleans()] * 4),
)
def test_rows_span_the_same_bytes_on_both_sides(s_table, t_table, text, seed, flags):
    student, teacher = random_tokens(s_table, text, seed), random_tokens(t_table, text, seed + 1)
    s_start, t_start, s_eos, t_eos = flags
    names = ("student_start", "teacher_start", "student_has_eos", "teacher_has_eos")
    found = aligned_rows(student, teacher, text, **dict(zip(names, flags, strict=True)))
    s_read = tokens_read(found.student_rows, s_start).tolist()
    t_read, e_read = tokens_read(found.teacher_rows, t_start).tolist(), tokens_read(found.end_rows, t_start).tolist()
    assert s_read == sorted(set(s_read))
    listed = dict(zip(s_read, zip(t_read, found.skips, e_read, found.end_skips, strict=True), strict=True))
    for i, (j, skip, k, rest) in listed.items():
        if i == len(student.ids):  # The end of the text.
            assert (j, skip, k, rest) == (len(teacher.ids), 0, len(teacher.ids) + 1, 0)
            continue
        assert spelled(t_table, teacher, (j, skip), (k, rest)) == s_table.pieces[student.ids[i]]
        # No teacher token ends between (j) and where the student stands: it has read all that it can have.
        length = len(t_table.pieces[teacher.ids[j]] or b"")
        assert skip == LEAD or 0 <= skip < length
    first = 0 if s_start or not student.ids else 1
    predictions = list(range(first, len(student.ids)))
    ends = s_eos and (s_start or bool(student.ids))
    assert found.positions == len(predictions) + ends
    assert found.positions_aligned == len(listed) <= found.positions
    assert found.positions_on_boundaries == sum(skip == 0 for _, skip, _, _ in listed.values())
    assert 0 <= found.bytes_aligned <= found.bytes <= len(text)
    # Whatever is not listed has its reason.
    written = (b" " if student.dummy_space else b"") + text
    for i in predictions:
        following = written[len(read_after(s_table, student, i)) :][:2]
        run = len(following) == 2 and all(byte in SPACES for byte in following)
        # A teacher without a start token has no row before it has read its first token.
        before = student.ends[i - 1] if i else 0
        unread = not t_start and (not teacher.ids or before < teacher.ends[0] or (i == 0 and student.dummy_space))
        assert i in listed or run or unread
    assert (len(student.ids) in listed) == (ends and t_eos and (t_start or bool(teacher.ids)))


@settings(max_examples=60, deadline=None)
@given(table=vocabularies(), text=TEXT.map(str.encode), seed=st.integers(0, 2**31))
def test_a_text_against_itself_lacks_nothing(table, text, seed):
    encoding = random_tokens(table, text, seed)
    found = aligned_rows(
        encoding, encoding, text, student_start=True, teacher_start=True, student_has_eos=True, teacher_has_eos=True
    )
    assert found.student_rows.tolist() == found.teacher_rows.tolist() == list(range(len(encoding.ids) + 1))
    assert not found.skips.any()
    assert not found.end_skips.any()


@settings(max_examples=60, deadline=None)
@given(teacher=vocabularies(), student=vocabularies(complete=False), seed=st.integers(0, 2**31))
def test_projection_against_brute_force(teacher, student, seed):
    logits = torch.randn(3, len(teacher), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 4
    probabilities = torch.softmax(logits, -1)
    expected = torch.zeros(3, len(student), dtype=torch.float64)
    residual = torch.zeros(3, dtype=torch.float64)
    for index, piece in enumerate(teacher.pieces):
        prefixes = [
            (len(candidate), position)
            for position, candidate in enumerate(student.pieces)
            if candidate and piece and piece.startswith(candidate) and position not in student.shadowed
        ]
        if index == teacher.eos_id:
            expected[:, student.eos_id] += probabilities[:, index]
        elif prefixes:
            expected[:, max(prefixes)[1]] += probabilities[:, index]
        else:
            residual += probabilities[:, index]
    found = BytePrefixMap.build(teacher, student).project(logits)
    torch.testing.assert_close(found.residual, residual)
    kept = found.log_target.exp() * (1 - found.residual)[:, None]
    torch.testing.assert_close(kept, expected)
    assert torch.equal(found.log_target.isneginf(), expected == 0)


@settings(max_examples=60, deadline=None)
@given(teacher=vocabularies(), student=vocabularies(), seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 3, 30]))
def test_mass_is_conserved(teacher, student, seed, scale):
    logits = torch.randn(4, len(teacher), generator=torch.Generator().manual_seed(seed)) * scale
    found = BytePrefixMap.build(teacher, student).project(logits)
    mapped = (found.log_target.double().exp().sum(-1) * (1 - found.residual.double())).tolist()
    assert mapped == pytest.approx((1 - found.residual.double()).tolist(), abs=1e-6)
    # With all bytes in the student only the special tokens (one of them EOS) can be residual.
    start = torch.softmax(logits.double(), -1)[:, 1].tolist()
    assert found.residual.tolist() == pytest.approx(start, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(table=vocabularies(), seed=st.integers(0, 2**31), temperature=st.sampled_from([1.0, 2.0, 7.0]))
def test_identical_tokenizers_make_it_plain_kl(table, seed, temperature):
    # Shadowed duplicates give their mass to their twin: the identity is for tokenizers without them.
    table = TokenBytes(tuple(dict.fromkeys(table.pieces[1:])), False, {0: "</s>"}, eos_id=0)
    mapping = BytePrefixMap.build(table, table)
    assert mapping.student_ids.tolist() == list(range(len(table)))

    generator = torch.Generator().manual_seed(seed)
    size = len(table)
    teacher = torch.randn(1, 6, size, dtype=torch.float64, generator=generator) * 3
    base = torch.randn(1, 6, size, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, size, (1, 6), generator=generator)
    index = torch.arange(5)
    results = []
    for projected in (False, True):
        student = base.clone().requires_grad_()
        if projected:
            target = mapping.project(teacher.flatten(0, 1)[index])
            assert target.residual.abs().max() == 0
            terms = cross_vocabulary_terms(student, labels, index, target.log_target, soft=SoftLoss(temperature))
        else:
            common = torch.ones(size, dtype=torch.bool)
            terms = same_vocabulary_terms(student, labels, teacher, common, soft=SoftLoss(temperature))
        (terms.soft_sum + terms.hard_sum).backward()
        results.append((terms.soft_sum.detach(), terms.hard_sum.detach(), student.grad))
    for plain, through_bytes in zip(*results, strict=True):
        torch.testing.assert_close(through_bytes, plain, rtol=1e-10, atol=1e-12)
