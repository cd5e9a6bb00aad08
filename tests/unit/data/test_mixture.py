"""Several sources as one: shares, splits that share no text, what is told of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distillkit.console import Console
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.document import Document, DocumentSet
from distillkit.data.examples import Example
from distillkit.data.mixture import MixedSplits, Mixture
from distillkit.data.sources import source_configs, source_fingerprint
from distillkit.errors import UsageError
from distillkit.settings.data_values import check_mix, mix_sources
from distillkit.settings.parameters import Parameters

QUIET = Console(quiet=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("wikitext:0.7,./mine.jsonl:0.3", {"wikitext": "0.7", "./mine.jsonl": "0.3"}),
        (r"C:\texts\a.jsonl:1, D:\b:2", {r"C:\texts\a.jsonl": "1", r"D:\b": "2"}),
        ("owner/name:config@v1.0:.5,owner/name@main:1", {"owner/name:config@v1.0": ".5", "owner/name@main": "1"}),
        ("one, two.txt:3,three:1", {"one, two.txt": "3", "three": "1"}),
        ("folder:de:2,folder:en:1", {"folder:de": "2", "folder:en": "1"}),
        ("a:1,b:2,c:3,", {"a": "1", "b": "2", "c": "3"}),
    ],
)
def test_a_mix_is_read(text: str, found: dict[str, str]) -> None:
    assert mix_sources(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("wikitext", "'wikitext' has no weight"),
        ("a:1,b", "'b' has no weight"),
        ("a:1", "two sources"),
        ("a:1,a:2", "named twice"),
        ("a:0,b:1", "weight of 'a' is 0"),
        ("a:-1,b:1", "two sources"),
        ("", "two sources"),
    ],
)
def test_what_is_no_mix_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_mix(text, "--mix")


def test_every_source_has_its_own_configuration() -> None:
    config = replace(Parameters(), mix="wikitext:3,./mine.txt:1", sample_size=1000, held_out_size=50)
    first, second = source_configs(config)
    assert (first.dataset, first.sample_size, first.held_out_size, first.mix) == ("wikitext", 750, 38, None)
    assert (second.dataset, second.sample_size, second.held_out_size) == ("./mine.txt", 250, 13)


def documents(name: str, count: int, start: int = 0) -> list[Document]:
    return [Document(f"text {index} of {name}", f"{name}:{index}") for index in range(start, start + count)]


def mixture(*sources: DocumentSet, weights: list[float]) -> Mixture:
    return Mixture([source.description for source in sources], weights, list(sources))


class CountingBuilder:
    """One example for each document, as many as are wanted."""

    def build(self, texts: list[Document], wanted: int):
        for number, document in enumerate(texts[:wanted]):
            yield Example(number, document.text, len(document.text), True, [1, 2], [1, 2], 2, 2)


def built(split: MixedSplits, part: str, wanted: int) -> list[Example]:
    return list(split.build(CountingBuilder(), part, wanted))  # type: ignore[arg-type]


def of_source(examples: list[Example], name: str) -> int:
    return sum(example.text.endswith(f"of {name}") for example in examples)


def test_every_part_and_every_beginning_has_the_shares() -> None:
    one = DocumentSet("one", {"all": documents("one", 600)}, {"k": "1"})
    two = DocumentSet("two", {"all": documents("two", 600)}, {"k": "2"})
    split = mixture(one, two, weights=[7, 3]).split(seed=1, max_length=64, held_out_size=20)
    train = built(split, "train", 200)
    assert len(train) == 200
    for first in (10, 50, 137, 200):
        assert abs(of_source(train[:first], "one") - 0.7 * first) <= 1
    assert of_source(built(split, "test", 20), "one") == 14
    assert of_source(built(split, "validation", 20), "two") == 6
    # Documents are numbered through: the bootstrap draws them.
    assert len({example.document for example in train}) == 200
    record = split.record()
    assert record is not None
    assert [item["splits"]["train"]["examples"] for item in record] == [140, 60]
    assert [item["fingerprint"] for item in record] == [{"k": "1"}, {"k": "2"}]
    assert sum(item["splits"]["train"]["bytes"] for item in record) == sum(example.bytes for example in train)


def test_largest_remainders_are_not_lost() -> None:
    empty = DocumentSet("", {}, {})
    for wanted in range(30):
        amounts = mixture(empty, empty, empty, weights=[1, 1, 1]).amounts(wanted)
        assert sum(amounts) == wanted
        assert max(amounts) - min(amounts) <= 1


def test_no_text_is_in_two_parts_of_whichever_sources() -> None:
    shared = documents("both", 300)
    official = {"train": shared, "validation": documents("one", 250), "test": documents("one", 250, 250)}
    one = DocumentSet("one", official, {})
    two = DocumentSet("two", {"all": [*shared, *documents("two", 300), *documents("one", 100, 200)]}, {})
    split = mixture(one, two, weights=[1, 1]).split(seed=3, max_length=64, held_out_size=20)
    texts = {
        part: [document.text for own in split.splits for document in getattr(own, part)]
        for part in ("train", "validation", "test")
    }
    everything = [text for part in texts.values() for text in part]
    assert len(everything) == len(set(everything))
    # What one source holds out the other does not train on.
    held_out = set(texts["validation"]) | set(texts["test"])
    assert {document.text for document in official["test"]} <= held_out
    assert any("another source" in note for note in split.notes)


def test_a_source_with_too_little_text_gives_what_it_has() -> None:
    one = DocumentSet("one", {"all": documents("one", 900)}, {})
    two = DocumentSet("two", {"all": documents("two", 250)}, {})
    split = mixture(one, two, weights=[1, 1]).split(seed=1, max_length=64, held_out_size=20)
    train = built(split, "train", 600)
    assert of_source(train, "one") == 300
    assert 0 < of_source(train, "two") < 300
    (line,) = split.shortages(600)
    assert line.startswith("--mix: two gives")


def test_conversations_and_plain_texts_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation((Turn("user", "hello"), Turn("assistant", "hello to you")))
    sources = iter(
        [
            DocumentSet("plain", {"all": documents("plain", 3)}, {}),
            DocumentSet("talks", {"all": [Document(talk.canonical(), "talks:1", conversation=talk)]}, {}),
        ]
    )
    monkeypatch.setattr("distillkit.data.mixture.load_documents", lambda *arguments: next(sources))
    with pytest.raises(UsageError, match=r"talks\.jsonl holds conversations and plain\.txt plain texts"):
        Mixture.load(replace(Parameters(), mix="plain.txt:1,talks.jsonl:1"), QUIET)


def test_the_fingerprint_is_of_every_source(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"the text of {name}", encoding="utf-8")
    config = replace(Parameters(), mix=f"{tmp_path / 'a.txt'}:1,{tmp_path / 'b.txt'}:1")
    before = source_fingerprint(config)
    (tmp_path / "b.txt").write_text("other words", encoding="utf-8")
    after = source_fingerprint(config)
    assert {key for key in before if before[key] != after[key]} == {key for key in before if key.startswith("2 ")}
    assert any(key.startswith("1 ") for key in before)
