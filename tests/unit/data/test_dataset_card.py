"""The configurations of a data card."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillkit.data.dataset_card import choose_config, config_files, read_card
from distillkit.errors import UsageError

NAMES = [
    "data/dev.jsonl",
    "data/one.jsonl",
    "data/sub/three.jsonl",
    "data/two.jsonl",
    "packed.zip/a.jsonl",
    "packed.zip/b.jsonl",
]


def card(folder: Path, front_matter: str) -> Path:
    path = folder / "README.md"
    path.write_text(f"---\n{front_matter}\n---\n# A set\n")
    return path


def splits(folder: Path, front_matter: str, wanted: str | None = None) -> dict[str, list[str]]:
    config = choose_config(read_card(card(folder, front_matter)), wanted, "set")
    return config_files(config, NAMES, {name: "packed.zip" for name in NAMES if name.startswith("packed.zip")}).splits


@pytest.mark.parametrize(
    ("data_files", "expected"),
    [
        ("[{split: train, path: data/*.jsonl}, {split: test, path: data/dev.jsonl}]",
         {"train": ["data/one.jsonl", "data/two.jsonl"], "test": ["data/dev.jsonl"]}),
        ("[{split: train, path: [data/one.jsonl, data/two.jsonl]}, {split: validation_small, path: ./data/dev.jsonl}]",
         {"train": ["data/one.jsonl", "data/two.jsonl"], "validation": ["data/dev.jsonl"]}),
        ("data/**", {"all": ["data/dev.jsonl", "data/one.jsonl", "data/sub/three.jsonl", "data/two.jsonl"]}),
        ("[data/one.jsonl, '**/three.jsonl']", {"all": ["data/one.jsonl", "data/sub/three.jsonl"]}),
        ("data/***/three.jsonl", {"all": ["data/sub/three.jsonl"]}),
        ("'**/sub/**'", {"all": ["data/sub/three.jsonl"]}),
        ("'data/[ot]*.json?'", {"all": ["data/one.jsonl", "data/two.jsonl"]}),
        ("packed.zip", {"all": ["packed.zip/a.jsonl", "packed.zip/b.jsonl"]}),
        ("[{split: en, path: data/one.jsonl}, {split: de, path: data/two.jsonl}]", {"all": ["data/one.jsonl", "data/two.jsonl"]}),
    ],
)  # fmt: skip
def test_the_patterns_of_a_card_say_what_is_which_split(
    tmp_path: Path, data_files: str, expected: dict[str, list[str]]
) -> None:
    assert splits(tmp_path, f"configs:\n- config_name: default\n  data_files: {data_files}") == expected


def test_a_folder_of_a_card_is_divided_by_names(tmp_path: Path) -> None:
    found = splits(tmp_path, "configs: [{config_name: default, data_dir: data}]")
    assert found == {
        "train": ["data/one.jsonl", "data/sub/three.jsonl", "data/two.jsonl"], "validation": ["data/dev.jsonl"],
    }  # fmt: skip


def test_what_a_card_does_not_name_is_left_out(tmp_path: Path) -> None:
    config = read_card(card(tmp_path, "configs: [{data_files: data/one.jsonl}]"))[0]
    assert config_files(config, NAMES, {}).left_out == [name for name in NAMES if name != "data/one.jsonl"]
    config = read_card(
        card(tmp_path, "configs: [{data_files: [{split: train, path: data/one.jsonl}, {split: test, path: x*}]}]")
    )[0]
    assert config_files(config, NAMES, {}).remarks == ["README.md names splits whose files are not here: test"]


def test_several_configurations_need_a_choice(tmp_path: Path) -> None:
    two = "configs: [{config_name: en, data_files: data/one.jsonl}, {config_name: de, data_files: data/two.jsonl}]"
    with pytest.raises(UsageError, match=r"2 configurations \(en, de\)") as caught:
        splits(tmp_path, two)
    assert caught.value.hint == "choose one: --dataset-path set:en"
    assert splits(tmp_path, two, "de") == {"all": ["data/two.jsonl"]}
    with pytest.raises(UsageError, match="no configuration 'fr'"):
        splits(tmp_path, two, "fr")
    assert splits(tmp_path, two.replace("{config_name: de", "{config_name: de, default: true")) == {
        "all": ["data/two.jsonl"]
    }


@pytest.mark.parametrize(
    ("front_matter", "words"),
    [
        ("configs: [{data_files: nothing/*.csv}]", "none of the files of its configuration 'default' is here"),
        ("configs: [{data_files: https://example.org/x.jsonl}]", "only files there are read"),
        ("configs: [{data_files: ../../secret.txt}]", "only files there are read"),
        ("configs: [{data_files: /etc/passwd}]", "only files there are read"),
        ("configs: [{data_files: 5}]", "are not paths"),
        ("configs: yes", "not a list of configurations"),
        ("configs: [: - {", "not valid YAML"),
        ("configs: [{data_files: !!python/object:os.system x}]", "not valid YAML"),
    ],
)
def test_cards_that_cannot_be_followed_are_refused(tmp_path: Path, front_matter: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        splits(tmp_path, front_matter)


def test_a_card_without_configurations_says_nothing(tmp_path: Path) -> None:
    assert read_card(card(tmp_path, "license: mit\ntags: [a]")) == []
    (tmp_path / "README.md").write_text("# configs\n\nNo front matter.\n")
    assert read_card(tmp_path / "README.md") == []


def test_patterns_take_no_time_whatever_a_card_holds(tmp_path: Path) -> None:
    """Each of these would take longer than the universe with a backtracking expression."""
    long = ["a" * 200 + "/" + "a" * 200 + ".txt", "/".join(["a"] * 60) + "/b.txt"]
    for pattern in ("*a" * 60 + "*b", "a*" * 60 + "/" + "a*" * 60 + "c", "**/" * 60 + "c", "**/a/" * 40 + "c"):
        path = tmp_path / "README.md"
        path.write_text(f"---\nconfigs: [{{data_files: ['{pattern}', '{long[1]}']}}]\n---\n")
        assert config_files(read_card(path)[0], long, {}).splits == {"all": [long[1]]}
