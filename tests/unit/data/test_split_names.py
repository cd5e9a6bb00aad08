"""Splits by the names of files and folders: the rules of `datasets`, and nothing called after a held-out split is trained on."""

from __future__ import annotations

import pytest
from datasets.data_files import SPLIT_KEYWORDS

from distillkit.data.split_names import assign_splits, divide, split_word


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("data/train-00000-of-00001.parquet data/test-00000-of-00001.parquet", {"train": [0], "test": [1]}),
        ("data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet data/validation-00000-of-00001.parquet",
         {"train": [0, 1], "validation": [2]}),
        ("train_data.jsonl my-dataset-test.jsonl", {"train": [0], "test": [1]}),
        ("wiki.dev.txt wiki.test.txt wiki.train.txt", {"train": [2], "validation": [0], "test": [1]}),
        ("test/a.txt test/b.txt training/a.txt", {"train": [2], "test": [0, 1]}),
        ("corpus/eval/a.md corpus/train/b.md", {"train": [1], "test": [0]}),
        ("de/Dev.jsonl.gz de/TRAIN.jsonl.gz en/test.jsonl en/train.jsonl",
         {"train": [1, 3], "validation": [0], "test": [2]}),
        ("train_gen-00000-of-00001.parquet train_sft-00000-of-00001.parquet test_sft-00000-of-00001.parquet",
         {"train": [0, 1], "test": [2]}),
        ("WikiTest.csv WikiTrain.csv", {"train": [1], "test": [0]}),
        ("testset.csv trainset.csv", {"train": [1], "test": [0]}),
        ("test.zip/1.txt train.zip/1.txt", {"train": [1], "test": [0]}),
        # What is held out wins where a path names two splits.
        ("train/a.jsonl train/test.jsonl", {"train": [0], "test": [1]}),
        ("train/a.jsonl train/testing/b.jsonl", {"train": [0], "test": [1]}),
        ("eval/train.jsonl train/x.jsonl", {"train": [1], "test": [0]}),
        # No file says that it is to be trained on: the others are.
        ("corpus.jsonl test.jsonl", {"train": [0], "test": [1]}),
        ("corpus-test.txt corpus.txt more.txt", {"train": [1, 2], "test": [0]}),
        # Names that only look like it.
        ("contest.txt detested.txt latest.txt trainer.txt", {"all": [0, 1, 2, 3]}),
        ("a.txt b.txt training.txt", {"all": [0, 1, 2]}),
        ("a.txt b.txt", {"all": [0, 1]}),
        ("test.jsonl test2.jsonl", {"all": [0, 1]}),
    ],
)  # fmt: skip
def test_files_go_to_the_split_that_their_names_say(names: str, splits: dict[str, list[int]]) -> None:
    given = names.split()
    found = assign_splits(given)
    assert found.splits == {split: [given[index] for index in indices] for split, indices in splits.items()}
    assert found.left_out == []


def test_every_word_that_datasets_knows_is_known() -> None:
    for split, words in SPLIT_KEYWORDS.items():
        for word in words:
            assert {split_word(name) for name in (word, f"my-{word}", f"{word}_1", f"a.{word}.b", word.upper())} == {
                str(split)
            }


def test_what_is_in_no_split_is_left_out_and_said() -> None:
    found = assign_splits(["notes.jsonl", "test.jsonl", "train.jsonl", "unsupervised.jsonl"])
    assert found.splits == {"train": ["train.jsonl"], "test": ["test.jsonl"]}
    assert found.left_out == ["notes.jsonl", "unsupervised.jsonl"]


def test_other_formats_beside_a_training_file_are_something_else() -> None:
    found = assign_splits(["notes.md", "train.jsonl", "train2.jsonl", "x.jsonl"])
    assert found.splits == {"all": ["train.jsonl", "train2.jsonl", "x.jsonl"]}
    assert found.left_out == ["notes.md"]


def test_a_training_file_among_others_is_said() -> None:
    assert assign_splits(["a.txt", "training.txt"]).remarks == [
        "no file is named after a held-out split: 2 files are read together, training.txt like the others"
    ]
    assert assign_splits(["train-1.txt", "train-2.txt"]).remarks == []


def test_a_title_among_many_texts_is_no_split_and_is_named() -> None:
    stories = [f"story-{number}.txt" for number in range(20)]
    found = assign_splits(sorted([*stories, "the-test-of-time.txt", "training.txt"]))
    assert len(found.splits["all"]) == 22
    assert any(remark.startswith("the-test-of-time.txt: not taken for a split") for remark in found.remarks)
    # A file that is called just so is one.
    found = assign_splits(sorted([*stories, "the-test-of-time.txt", "test.txt"]))
    assert found.splits["test"] == ["test.txt"]
    assert "the-test-of-time.txt" in found.splits["train"]
    assert any(remark.startswith("the-test-of-time.txt") for remark in found.remarks)
    # In a table it is: titles are names of texts, and a table holds many.
    rows = [f"part-{number}.jsonl" for number in range(20)]
    assert assign_splits([*rows, "the-test-rows.jsonl"]).splits["test"] == ["the-test-rows.jsonl"]


def test_nothing_but_a_held_out_split_is_said() -> None:
    assert "nothing but the split test" in assign_splits(["test.jsonl"]).remarks[0]
    assert divide({"test": ["b"], "validation": ["a"]}, []).splits == {"all": ["a", "b"]}
