"""What of a folder is no data: cards, runs, models, programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillkit.data.folder_walk import is_run, walk_data
from distillkit.data.notes import ReadingNotes
from distillkit.run.directory import RunDirectory
from distillkit.settings.resolve import resolve


def make(folder: Path, *names: str, content: str = "A text.") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def walked(folder: Path, output_dir: Path | None = None) -> tuple[list[str], list[str]]:
    notes = ReadingNotes()
    found = sorted(path.relative_to(folder).as_posix() for path in walk_data(folder, output_dir, notes))
    return found, notes.lines()


@pytest.mark.parametrize(
    "name",
    [
        "README.md", "readme.txt", "README", "README_zh.md", "README.de.md", "LICENSE", "LICENCE.txt", "LICENSE-2.0.txt", "LICENSE_MIT",
        "license.md", "COPYING", "NOTICE.txt", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "dataset_card.md",
        "dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json", "requirements.txt", "requirements-dev.txt",
        "package.json", "config.json", "CMakeLists.txt", "SHA256SUMS.txt", "croissant.json",
    ],
)  # fmt: skip
def test_cards_and_records_are_no_data(tmp_path: Path, name: str) -> None:
    make(tmp_path, name, "sub/a.txt")
    assert walked(tmp_path) == (["sub/a.txt"], [f"no data, left out: {name}"])


@pytest.mark.parametrize(
    "name",
    [
        "readme-and-weep.txt", "license-to-kill.txt", "notice.txt", "changes.md", "security.txt", "the-readme.md", "citations.txt",
        "state-of-affairs.json", "requirements.md", "authors.jsonl", "copying.txt", "license.jsonl", "notes.md",
    ],
)  # fmt: skip
def test_titles_that_resemble_them_are(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    assert walked(tmp_path) == ([name], [])


def test_captions_are_data_where_they_are_all_there_is(tmp_path: Path) -> None:
    make(tmp_path, "train/metadata.jsonl")
    assert walked(tmp_path)[0] == ["train/metadata.jsonl"]
    make(tmp_path, "train.jsonl")
    assert walked(tmp_path) == (["train.jsonl"], ["no data, left out: train/metadata.jsonl"])


def test_programs_and_hidden_folders_are_no_data(tmp_path: Path) -> None:
    make(
        tmp_path, "a.txt", ".git/b.txt", ".cache/c.txt", "__pycache__/d.txt", "node_modules/e/README.md", "node_modules/e/f.txt",
        "my-env/lib/python3/site-packages/g.txt", "h.egg-info/SOURCES.txt", "__MACOSX/i.txt", "env/poem.txt",
    )  # fmt: skip
    make(tmp_path, "my-env/pyvenv.cfg")
    found, notes = walked(tmp_path)
    assert found == ["a.txt", "env/poem.txt"]
    assert notes == [
        "hidden files and folders left out: 2",
        "folders of programs left out (virtual environments, caches, packages): 5",
    ]


def test_files_of_models_are_no_data(tmp_path: Path) -> None:
    make(
        tmp_path,
        "m/config.json",
        "m/model.safetensors",
        "m/tokenizer.json",
        "m/merges.txt",
        "m/vocab.json",
        "m/more.json",
        "m/poem.txt",
    )
    make(tmp_path, "tok/tokenizer_config.json", "tok/vocab.txt")
    make(tmp_path, "own.json", "vocab.txt")
    found, notes = walked(tmp_path)
    assert found == ["m/model.safetensors", "m/poem.txt", "own.json", "vocab.txt"]
    assert notes == ["files of models left out: 7"]
    # Where the folder itself holds a model, texts may lie beside it.
    make(tmp_path, "tokenizer.json", "config.json")
    assert walked(tmp_path)[0] == ["m/model.safetensors", "m/poem.txt", "own.json"]


def test_runs_and_their_folder_are_no_data(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "output/notes.txt", "other/manifest.json", "other/b.txt")
    run = RunDirectory.create(tmp_path / "output" / "run", resolve({}))
    kept = RunDirectory.create(tmp_path / "kept" / "run", resolve({}))
    make(kept.path, "demo.json")
    assert (is_run(run.path), is_run(kept.path), is_run(tmp_path / "other"), is_run(tmp_path)) == (
        True,
        True,
        False,
        False,
    )
    found, notes = walked(tmp_path, tmp_path / "output")
    assert [name for name in found if not name.startswith("kept/latest")] == [
        "a.txt",
        "other/b.txt",
        "other/manifest.json",
    ]
    assert any("the output directory is no data" in note for note in notes)
    assert "runs of this program left out: 1" in notes
    # Without its place, the runs are still known.
    assert [name for name in walked(tmp_path)[0] if name.endswith(".txt")] == [
        "a.txt",
        "other/b.txt",
        "output/notes.txt",
    ]
    # A folder of texts inside the output directory is what the user named.
    assert "notes.txt" in walked(tmp_path / "output", tmp_path / "output")[0]


@pytest.mark.parametrize("content", ["{", "[]", "5", json.dumps({"name": "an app"}), "\0", "[" * 100_000])
def test_other_manifests_make_no_run(tmp_path: Path, content: str) -> None:
    make(tmp_path, "manifest.json", content=content)
    assert not is_run(tmp_path)
