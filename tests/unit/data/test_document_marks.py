"""`<|endoftext|>` and its relatives part documents in running text, and only where documents are parted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillkit.console import Console
from distillkit.data.document_marks import MarkCount, end_marks, parted
from distillkit.data.sources import load_documents
from distillkit.settings.parameters import Parameters

MARKS = end_marks(["<|im_end|>", "<|fin|>", None])


def parts(text: str, *, block: int = 1 << 20, markdown: bool = False) -> list[str]:
    blocks = [text[start : start + block] for start in range(0, len(text), block)]
    found = ["".join(part.blocks).strip() for part in parted(blocks, MARKS, MarkCount(), markdown=markdown)]
    return [part for part in found if part]


def test_turns_of_a_chat_end_no_document() -> None:
    assert "<|fin|>" in MARKS
    assert {"<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"} <= set(MARKS)
    for name in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>"):
        assert name not in end_marks([name])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\n<|endoftext|>\ntwo\n", ["one", "two"]),
        ("one<|endoftext|>\ntwo <|endoftext|>", ["one", "two"]),
        ("<|endoftext|>one\n<|endoftext|>two\nlines", ["one", "two\nlines"]),
        ("<s>\none\n</s>\ntwo\n", ["<s>\none\n</s>\ntwo"]),
        ("one\n</s>\ntwo</s>\nthree", ["one", "two", "three"]),
        ("one\n<eos>\ntwo\n  <|end_of_text|>  \nthree<|fin|>\nfour", ["one", "two", "three", "four"]),
        ("now <s>10</s>\n5 euros", ["now <s>10</s>\n5 euros"]),
        ("the token <|endoftext|> ends a text", ["the token <|endoftext|> ends a text"]),
        ("one<|endoftext|><|endoftext|>\n\n<|endoftext|>\ntwo", ["one", "two"]),
        ("user<|im_end|>\nmore<|im_end|>", ["user<|im_end|>\nmore<|im_end|>"]),
        ("no mark\n\nat all", ["no mark\n\nat all"]),
    ],
)
def test_where_documents_are_parted(text: str, expected: list[str]) -> None:
    for block in (1, 3, 7, 1000):
        assert parts(text, block=block) == expected


def test_fenced_code_of_markdown_is_text() -> None:
    text = "one\n```\n<|endoftext|>\n```\ntwo\n<|endoftext|>\nthree"
    assert parts(text, markdown=True) == ["one\n```\n<|endoftext|>\n```\ntwo", "three"]
    assert parts(text) == ["one\n```", "```\ntwo", "three"]


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(
        st.sampled_from(["word", "\n", " ", "<|endoftext|>", "</s>", "<s>", "```", "<|end", "of"]), max_size=25
    ).map("".join),
    block=st.integers(1, 9),
    markdown=st.booleans(),
)
def test_nothing_is_lost_and_blocks_do_not_matter(text: str, block: int, markdown: bool) -> None:
    count = MarkCount()
    joined = "".join("".join(part.blocks) for part in parted([text], MARKS, count, markdown=markdown))
    assert parts(text, block=block, markdown=markdown) == parts(text, markdown=markdown)

    def bare(part: str) -> str:
        return "".join(part.replace("<|endoftext|>", "").replace("</s>", "").split())

    assert bare(joined) == bare(text)
    assert joined.count("<|endoftext|>") + joined.count("</s>") + count.times == text.count(
        "<|endoftext|>"
    ) + text.count("</s>")


def test_parts_of_a_file_are_documents_that_end(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    long = "\n\n".join(f"Paragraph {number} of a long one, with some words." for number in range(600))
    file.write_text(f"first\n<|endoftext|>\n{long}\n<|endoftext|>\nthird\nline<|endoftext|>\n")
    read = load_documents(Parameters(dataset_path=str(file)), Console(quiet=True), end_marks=MARKS)
    documents = read.splits["all"]
    assert [document.text for document in (documents[0], documents[-1])] == ["first", "third\nline"]
    assert [document.ends_text for document in documents] == [True, *[False] * (len(documents) - 3), True, True]
    lines = file.read_text().split("\n")
    for document in documents:
        number = int(document.origin.rsplit(":", 1)[1])
        assert lines[number - 1] == document.text.split("\n")[0] or lines[number - 1].startswith(
            document.text.split("\n")[0]
        )
    assert any("3" in note and "end-of-text marks" in note for note in read.notes)
    whole = load_documents(Parameters(dataset_path=str(file)), Console(quiet=True)).splits["all"]
    assert any("<|endoftext|>" in document.text for document in whole)


def test_a_line_of_megabytes_is_not_held(tmp_path: Path) -> None:
    text = "<|endoftext|>" + "word " * 500_000 + "<|endoftext|>\nnext"
    assert [len(part) for part in parts(text, block=1 << 16)] == [5 * 500_000 - 1, 4]
