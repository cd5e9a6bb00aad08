"""What a server says of tokens of its own, carried over to the student's by their bytes, against loops over tokens in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from drawn_vocabularies import TEXT, random_tokens, vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st

from distillkit.alignment.encoding import Encoding
from distillkit.alignment.first_token import longest_prefix
from distillkit.alignment.rows import LEAD, aligned_rows
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.servers.spelled_prompt import OtherTextError, prompt_nll, spelled_prompt
from distillkit.teachers.served_bytes import LEAST_COVERED, ByteCarrier, CarriedOver

END = b""  # The end of a text, among pieces.


@dataclass
class Server:
    """A server's distributions over pieces, after each token of a text (a start token in front)."""

    tokens: list[bytes]
    chances: list[dict[bytes, float]]

    @classmethod
    def random(cls, table: TokenBytes, tokens: list[bytes], seed: int, scale: float) -> Server:
        pieces = [*sorted({piece for piece in table.pieces if piece}), END]
        drawn = np.exp(np.random.default_rng(seed).normal(size=(len(tokens) + 1, len(pieces))) * scale)
        drawn /= drawn.sum(-1, keepdims=True)
        return cls(tokens, [dict(zip(pieces, row.tolist(), strict=True)) for row in drawn])

    def named(self, size: int) -> list[dict[bytes, float]]:
        """The likeliest `size` of each place, and what follows."""
        named = []
        for place, chances in enumerate(self.chances):
            likely = sorted(chances, key=lambda piece: -chances[piece])[:size]
            following = self.tokens[place : place + 1]
            named.append({piece: chances[piece] for piece in {*likely, *following}})
        return named

    def reply(self, size: int) -> dict[str, object]:
        """As OpenAI's older completions with `echo`."""
        named = self.named(size)
        tops = [{spelling(piece): float(np.log(p)) for piece, p in place.items()} for place in named]
        written = max(named[-1], key=lambda piece: named[-1][piece])
        tokens = [*self.tokens, written]
        own = [None, *(float(np.log(self.chances[place][piece])) for place, piece in enumerate(tokens))]
        tokens = ["<s>", *map(spelling, tokens)]
        return {"choices": [{"logprobs": {"tokens": tokens, "token_logprobs": own, "top_logprobs": [None, *tops]}}]}


def spelling(piece: bytes) -> str:
    if piece == END:
        return "</s>"
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def first_token(student: TokenBytes, rest: bytes) -> int | None:
    fitting = [
        (len(piece), index)
        for index, piece in enumerate(student.pieces)
        if piece and rest.startswith(piece) and index not in student.shadowed
    ]
    return max(fitting)[1] if fitting else None


def naive_row(
    student: TokenBytes, server: Server, named: list[dict[bytes, float]], s_next: int, row: tuple[int, ...]
) -> tuple[np.ndarray, float, float]:
    """([V] masses of the student's tokens, what the tail is, how much of all that may be wrong), at one row."""
    t_row, skip, e_row, e_skip = row
    following = [*server.tokens, END]
    met, target, onward = following[t_row], np.zeros(len(student)), 1.0
    tails = [1 - sum(place.values()) for place in named]
    for later in range(t_row + 1, e_row + 1):
        if later < e_row:
            onward *= named[later][following[later]]
        elif e_skip > 0:
            begun = following[later][:e_skip]
            onward *= sum(p for piece, p in named[later].items() if piece and piece.startswith(begun))
    for piece, p in named[t_row].items():
        if piece == END:
            place = student.eos_id if skip == 0 else None
        elif skip == LEAD:
            place = first_token(student, b" " + piece)
        else:
            place = first_token(student, piece[skip:]) if piece.startswith(met[:skip]) else None
        mass = p
        if piece == met:
            target[s_next] += mass * onward
            mass -= mass * onward
        if place is not None:
            target[place] += mass
    total, tail = target.sum(), tails[t_row] if skip <= 0 else 0.0
    moved = named[t_row].get(met, 0.0) * tails[e_row] if e_row > t_row and e_skip > 0 else 0.0
    doubt = tails[t_row] / (total + tails[t_row]) + moved / (total + tail) if total > 0 else 1.0
    return target, tail, doubt


def carried_over(
    student: TokenBytes, server: Server, size: int, text: bytes, encoding: Encoding
) -> tuple[CarriedOver, np.ndarray]:
    """What is carried over, and [rows, V] the targets, zeros where there is none."""
    prompt = spelled_prompt("echo", server.reply(size), text.decode())
    example = {"student_ids": [1, *encoding.ids, 0], "first_target": 1}
    found = ByteCarrier(student, longest_prefix(student)).carry(prompt, text, encoding, example, starts=True, ends=True)
    dense = np.zeros((len(encoding.ids) + 1, len(student)))
    dense[np.repeat(found.rows.rows, found.rows.counts), found.rows.ids] = found.rows.probabilities
    return found, dense


@settings(max_examples=40, deadline=None)
@given(
    s_table=vocabularies(), t_table=vocabularies(), text=TEXT.filter(lambda text: bool(text) and not set(text) & set("▁\ufffd<[")),
    seed=st.integers(0, 2**31), size=st.sampled_from([1, 3, 20, 1000]), scale=st.sampled_from([1.0, 4.0]),
)  # fmt: skip
def test_targets_against_loops(s_table, t_table, text, seed, size, scale):
    data = text.encode()
    ours, theirs = random_tokens(s_table, data, seed), random_tokens(t_table, data, seed + 1)
    server = Server.random(t_table, [t_table.pieces[index] or b"" for index in theirs.ids], seed, scale)
    found, dense = carried_over(s_table, server, size, data, ours)
    tails = dict(zip(found.rows.rows.tolist(), found.rows.tails.tolist(), strict=True))

    named, everything = server.named(size), server.named(10**6)
    told = "</s>" in map(spelling, named[-1])
    paired = aligned_rows(
        ours, theirs, data, student_start=True, teacher_start=True, student_has_eos=True, teacher_has_eos=told
    )
    columns = (paired.student_rows, paired.teacher_rows, paired.skips, paired.end_rows, paired.end_skips)
    s_ids = [*ours.ids, 0]
    used = 0
    for s_row, *row in zip(*(column.tolist() for column in columns), strict=True):
        target, tail, doubt = naive_row(s_table, server, named, s_ids[s_row], tuple(row))
        if abs(1 - doubt - LEAST_COVERED) < 1e-9:
            continue
        assert (s_row in tails) == (target.sum() > 0 and 1 - doubt >= LEAST_COVERED)
        if s_row not in tails:
            continue
        used += 1
        whole = target.sum() + tail
        np.testing.assert_allclose(dense[s_row], target / whole, atol=1e-6)
        assert tails[s_row] == pytest.approx(tail / whole, abs=1e-6)
        # What it is worth: no sum of probabilities is further from the truth than is said.
        truth, *_ = naive_row(s_table, server, everything, s_ids[s_row], tuple(row))
        truth /= truth.sum()
        wrong = (dense[s_row] - truth)[dense[s_row] > 0]
        doubt = max(doubt, 0.0)  # Of a tail that is nothing, rounding leaves a hair below zero.
        assert wrong.clip(min=0).sum() <= doubt + 1e-6
        assert -wrong.clip(max=0).sum() <= doubt + 1e-6
        if size == 1000:
            np.testing.assert_allclose(dense[s_row], truth, atol=1e-6)
    assert used + found.thin == paired.positions_aligned


# --- texts in a server's tokens ---------------------------------------------------------------------------------------


def echoed(tokens: list[str], tops: list[dict[str, float] | None] | None = None) -> dict[str, object]:
    own = [None, *[-1.0] * (len(tokens) - 1)]
    tops = tops or [None, *({token: -1.0} for token in tokens[1:])]
    return {"choices": [{"logprobs": {"tokens": tokens, "token_logprobs": own, "top_logprobs": tops}}]}


def test_a_text_is_laid_out_by_its_bytes():
    found = spelled_prompt("echo", echoed(["<s>", "▁Was", "▁soll", "<0xC3>", "bytes:\\xa9", "x"]), "Was sollé")
    assert (found.pieces, found.dummy_space, found.starts) == ([b" Was", b" soll", b"\xc3", b"\xa9"], True, True)
    assert found.ends.tolist() == [3, 8, 9, 10]
    assert prompt_nll(found, 10) == (4.0, 10, 4)


def test_without_a_start_token_the_first_token_is_not_predicted():
    found = spelled_prompt("echo", echoed(["one", " two"]), "one two")
    assert (found.starts, found.spreads[0]) == (False, None)
    assert prompt_nll(found, 7) == (1.0, 4, 1)


def vllm(tokens: list[str]) -> dict[str, object]:
    places = [None, *({str(index): {"logprob": -1.0, "decoded_token": token}} for index, token in enumerate(tokens))]
    return {"choices": [{"prompt_logprobs": places}]}


@pytest.mark.parametrize(("tokens", "starts"), [(["one", " two"], True), ([" two"], False)])
def test_the_token_that_vllm_does_not_name(tokens: list[str], starts: bool):
    found = spelled_prompt("prompt_logprobs", vllm(tokens), "one two")
    assert (found.pieces, found.ends.tolist(), found.starts) == ([b"one", b" two"], [3, 7], starts)


def test_lossy_tokens_are_between_those_that_are_told():
    found = spelled_prompt("echo", echoed(["<s>", "a ", "\ufffd", "\ufffd", " b", "x"]), "a 😀 b")
    assert found.pieces == [b"a ", None, None, b" b"]
    assert found.ends.tolist() == [2, 6, 6, 8]
    # Of lossy tokens among the likeliest nobody knows what they are.
    tops = [None, {"a": -1.0, "\ufffd": -1.0}, None]
    spread = spelled_prompt("echo", echoed(["<s>", "a", "x"], tops), "a").spreads[0]
    assert spread is not None
    assert spread.tokens == {b"a": pytest.approx(np.exp(-1))}


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["<s>", "one", "two", "x"], "one two"),  # Some servers strip SentencePiece's spaces.
        (["<s>", "ONE", "x"], "one"),
        (["<s>", "\ufffd", "é", "\ufffd", "x"], "ééé¿é"),
        (["<s>", "token_id:7", "x"], "one"),
    ],
)
def test_what_cannot_be_told_is_not_guessed(tokens: list[str], text: str):
    with pytest.raises(OtherTextError):
        spelled_prompt("echo", echoed(tokens), text)


def test_rows_at_lossy_tokens_have_no_target():
    student = TokenBytes(
        (None, None, *(bytes([byte]) for byte in range(256))), specials={0: "</s>", 1: "<s>"}, eos_id=0
    )
    data = "a 😀 b".encode()
    encoding = Encoding([byte + 2 for byte in data], np.arange(1, len(data) + 1))
    names = ["<s>", "a ", "\ufffd", "\ufffd", " b"]
    tops = [None, *({name: -0.05} for name in names[1:]), {"</s>": -0.05}]
    prompt = spelled_prompt("echo", echoed([*names, "x"], tops), data.decode())
    example = {"student_ids": [1, *encoding.ids, 0], "first_target": 1}
    found = ByteCarrier(student, longest_prefix(student)).carry(prompt, data, encoding, example, starts=True, ends=True)
    # The row before the character and its three others; the second byte of each other token is certain.
    assert found.rows.rows.tolist() == [0, 1, 6, 7, 8]
    assert found.untold == 4
