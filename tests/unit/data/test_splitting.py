"""Train, validation and test share no text, follow the seed, and use what the source holds out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillkit.data.cleaning import text_digest
from distillkit.data.document import Document, DocumentSet
from distillkit.data.splitting import DocumentSplits, split_documents
from distillkit.errors import UsageError


def document_set(**splits: list[str]) -> DocumentSet:
    return DocumentSet(
        "a source",
        {split: [Document(text, f"{split}:{n}") for n, text in enumerate(texts)] for split, texts in splits.items()},
        {},
    )


def numbered(count: int, words: int = 20) -> list[str]:
    return [f"text {number} " + "word " * words + "end" for number in range(count)]


def texts(splits: DocumentSplits) -> dict[str, list[str]]:
    return {name: [d.text for d in getattr(splits, name)] for name in ("train", "validation", "test")}


def test_a_tenth_each_by_bytes_following_the_seed() -> None:
    source = document_set(all=numbered(500))
    first = split_documents(source, seed=1)
    sizes = {name: len(found) for name, found in texts(first).items()}
    assert sum(sizes.values()) == 500
    assert 48 <= sizes["validation"] <= 52
    assert 48 <= sizes["test"] <= 52
    assert not first.official
    assert texts(split_documents(source, seed=1)) == texts(first)
    assert texts(split_documents(source, seed=2)) != texts(first)
    assert first.train != sorted(first.train, key=lambda document: int(document.origin[4:]))


def test_the_held_out_share_follows_the_size_asked_for() -> None:
    source = document_set(all=numbered(1000, words=300))
    small = split_documents(source, seed=1, max_length=256, held_out_size=20)
    large = split_documents(source, seed=1, max_length=256, held_out_size=10_000)
    assert 95 <= len(small.test) <= 105  # a tenth: more documents than examples make a narrower interval
    assert 240 <= len(large.test) <= 260
    assert len(large.train) >= 480


@given(
    st.lists(st.text(alphabet="ab \n", min_size=1, max_size=6).filter(str.strip), min_size=3, max_size=60),
    st.integers(0, 9),
)
def test_no_text_is_in_two_splits(words: list[str], seed: int) -> None:
    source = document_set(train=words, validation=words[::2], test=words[1::3])
    unofficial = document_set(all=words)
    for candidate in (source, unofficial):
        try:
            splits = texts(split_documents(candidate, seed=seed))
        except UsageError:
            continue
        digests = [text_digest(text) for found in splits.values() for text in found]
        assert len(digests) == len(set(digests))
        assert all(splits.values())


def test_official_splits_are_kept_and_overlap_leaves_train() -> None:
    train, held_out = numbered(300), ["held out a", "held out b"]
    source = document_set(train=[*train, "held  out a\n", train[0]], validation=["held out b", "v"], test=held_out)
    splits = split_documents(source, seed=3)
    assert splits.official
    assert sorted(texts(splits)["train"]) == sorted(train)
    assert texts(splits)["validation"] == ["v"]
    assert sorted(texts(splits)["test"]) == held_out
    assert splits.notes == [
        "documents left out of validation because they are held out too: 1",
        "duplicate documents left out of train: 1",
        "documents left out of train because they are held out too: 1",
    ]


@pytest.mark.parametrize("only", ["validation", "test"])
def test_one_official_held_out_split_is_divided(only: str) -> None:
    splits = split_documents(document_set(train=numbered(50), **{only: [f"held {n}" for n in range(40)]}), seed=1)
    assert len(splits.train) == 50
    assert len(splits.validation) + len(splits.test) == 40
    assert 18 <= len(splits.test) <= 22
    assert all(text.startswith("held") for text in texts(splits)["validation"] + texts(splits)["test"])


@pytest.mark.parametrize("only", ["train", "test"])
def test_a_lone_split_is_divided_into_three(only: str) -> None:
    splits = split_documents(document_set(**{only: numbered(50)}), seed=1)
    assert not splits.official
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 50


def test_few_documents_are_cut_finer_and_only_real_ends_end_the_text() -> None:
    book = "\n\n".join(f"Paragraph {n}: " + "word " * 60 for n in range(300))
    splits = split_documents(document_set(all=[book]), seed=1, max_length=64)
    every = [*splits.train, *splits.validation, *splits.test]
    assert len(every) > 100
    assert sum(document.ends_text for document in every) == 1
    assert "cut finer" in splits.notes[0]
    tiny = split_documents(document_set(all=[" ".join(f"Sentence {n} of few." for n in range(12))]), seed=1)
    assert min(len(tiny.train), len(tiny.validation), len(tiny.test)) >= 1


@pytest.mark.parametrize("few", [["one"], ["one", "two"], ["same text"] * 50])
def test_too_few_documents_are_refused_with_numbers(few: list[str]) -> None:
    with pytest.raises(UsageError, match=r"too little text to split: \d documents? \(.* at least 3") as caught:
        split_documents(document_set(all=few), seed=1)
    assert caught.value.hint


def test_a_train_split_that_is_all_held_out_is_refused() -> None:
    with pytest.raises(UsageError, match="no document is left for train"):
        split_documents(document_set(train=["a", "b"], validation=["a"], test=["b"]), seed=1)
