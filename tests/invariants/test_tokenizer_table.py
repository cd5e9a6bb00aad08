"""All pairs of tokenizers, all kinds of text: shared boundaries and coverage are those of a count by hand."""

from __future__ import annotations

import itertools

import pytest
from text_kinds import TEXT_KINDS
from tokenizer_table import TOKENIZERS, Side, check_pair, made

Tokenizers = dict[str, Side]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    return made(tmp_path_factory.mktemp("tokenizers"))


@pytest.mark.parametrize("student", TOKENIZERS)
def test_coverage_of_every_pair(tokenizers: Tokenizers, student: str) -> None:
    read = 0
    for number, (teacher, kind) in enumerate(itertools.product(TOKENIZERS, TEXT_KINDS)):
        flags = (bool(number & 1), bool(number & 2), bool(number & 4), bool(number & 8))
        read += check_pair(tokenizers[student], tokenizers[teacher], kind, flags)
    assert read > len(TEXT_KINDS)
