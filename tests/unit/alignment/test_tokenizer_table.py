"""Every kind of tokenizer reads every kind of text as transformers does, or refuses it; a sample of all pairs."""

from __future__ import annotations

import pytest
from text_kinds import TEXT_KINDS
from tokenizer_table import COMPLETE, TOKENIZERS, UNKNOWABLE, Side, check_pair, check_reading, made

from distillkit.alignment.token_bytes import token_bytes
from distillkit.errors import PreconditionError

Tokenizers = dict[str, Side]
NAMES = list(TOKENIZERS)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    return made(tmp_path_factory.mktemp("tokenizers"))


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_read_as_the_plain_tokenizer_reads_them(tokenizers: Tokenizers, name: str) -> None:
    refused = [kind for kind in TEXT_KINDS if not check_reading(tokenizers[name], kind)]
    if name in COMPLETE:
        assert refused == ["half a surrogate pair"]
    assert len(refused) < (len(TEXT_KINDS) if "no fallback" in name or "word" in name else len(TEXT_KINDS) / 2)


@pytest.mark.parametrize("name", UNKNOWABLE)
def test_what_does_not_spell_texts_is_refused(name: str) -> None:
    with pytest.raises(PreconditionError, match="cannot be known"):
        token_bytes(UNKNOWABLE[name]())


def test_coverage_of_some_pairs(tokenizers: Tokenizers) -> None:
    """Every tokenizer as student and as teacher, every kind of text; all pairs with all texts are a slow test."""
    read = 0
    for place, kind in enumerate(TEXT_KINDS):
        for index, student in enumerate(NAMES):
            teacher = NAMES[(index + 1 + place) % len(NAMES)]
            flags = tuple(bool((place + index) >> bit & 1) for bit in range(4))
            read += check_pair(tokenizers[student], tokenizers[teacher], kind, flags)
    assert read > len(TEXT_KINDS) * len(NAMES) / 3
