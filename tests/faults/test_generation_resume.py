"""Generation that is killed, cut off or runs out of disk, and then goes on, writes what it would have written anyway."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_python
from tiny_models import make_paragraph, tiny_model, tiny_tokenizer

from distillkit.console import Console
from distillkit.errors import DistillkitError
from distillkit.teachers.generated_file import Prompt, asked_often, check_of
from distillkit.teachers.generation import Sampling, generate_continuations

PROMPTS, BATCH = 22, 3


def write(
    output: Path, *, seconds_per_token: float = 0.0, console: Console | None = None, answers: int = 1
) -> list[Any]:
    """One generation, the same in every process."""
    torch.set_num_threads(1)
    tokenizer = tiny_tokenizer(vocab_size=300)
    model = tiny_model("llama", vocab_size=300, seed=4)
    model.register_forward_pre_hook(lambda *_: time.sleep(seconds_per_token))
    generator = random.Random(6)
    texts = [make_paragraph(generator, 1)[: 10 + 3 * index] for index in range(PROMPTS)]
    prompts = [
        Prompt(index, text, tokenizer(text)["input_ids"], len(text.encode())) for index, text in enumerate(texts)
    ]
    prompts = asked_often(prompts, answers)
    return generate_continuations(
        lambda: model, tokenizer, prompts, [20] * len(prompts), Sampling(1.0, 0.95, 5, BATCH), output=output,
        device=torch.device("cpu"), console=console or Console(quiet=True), model_fingerprint="tiny",
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[Any]]:
    """The file and the result of a generation that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed") / "generated.jsonl"
    found = write(output)
    return output.read_bytes(), found


def begin_again(folder: Path, content: bytes) -> tuple[Path, str, list[Any]]:
    """Continue from a file with `content`; what was said about it is returned too."""
    output = folder / "generated.jsonl"
    if not output.with_suffix(".settings.json").exists():
        write(output)
    output.write_bytes(content)
    said = io.StringIO()
    found = write(output, console=Console(err=said))
    return output, said.getvalue(), found


@pytest.mark.parametrize(("lines", "answers"), [(0, 1), (4, 1), (9, 1), (10, 2)])
def test_kill_9(
    tmp_path: Path,
    lines: int,
    answers: int,
    undisturbed: tuple[bytes, list[Any]],
    cli_env: Callable[..., dict[str, str]],
) -> None:
    if answers > 1:
        (tmp_path / "undisturbed").mkdir()
        found = write(tmp_path / "undisturbed" / "generated.jsonl", answers=answers)
        undisturbed = ((tmp_path / "undisturbed" / "generated.jsonl").read_bytes(), found)
        assert [(done.index, done.answer) for done in found] == [(n, k) for n in range(PROMPTS) for k in range(answers)]
        assert len({(done.index, done.text) for done in found}) > 1.8 * PROMPTS
    output = tmp_path / "generated.jsonl"
    program = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]\n"
        "from pathlib import Path; import test_generation_resume\n"
        f"test_generation_resume.write(Path({str(output)!r}), seconds_per_token=0.01, answers={answers})"
    )
    process = warm_python.Popen([sys.executable, "-c", program], env=cli_env(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not output.exists() or output.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = output.read_bytes()
    assert lines <= left.count(b"\n") < PROMPTS * answers
    assert undisturbed[0].startswith(left)
    found = write(output, answers=answers)
    assert output.read_bytes() == undisturbed[0]
    assert found == undisturbed[1]


def test_a_file_cut_off_anywhere_is_completed(tmp_path: Path, undisturbed: tuple[bytes, list[Any]]) -> None:
    content, result = undisturbed
    ends = [index + 1 for index, byte in enumerate(content) if byte == 10]
    cuts = [
        0,
        1,
        ends[0],
        ends[BATCH - 1] - 1,
        ends[BATCH - 1],
        ends[BATCH - 1] + 7,
        ends[BATCH],
        ends[-1] - 1,
        ends[-1],
    ]
    for cut in cuts:
        output, said, found = begin_again(tmp_path, content[:cut])
        assert output.read_bytes() == content
        assert found == result
        whole = len([end for end in ends if end <= cut])
        whole = whole if whole == PROMPTS else whole - whole % BATCH
        kept = ends[whole - 1] if whole else 0
        assert (f"{cut - kept:,} bytes of an unfinished batch are dropped" in said) == (cut > kept)
        assert (f"{whole} of {PROMPTS} texts are already written" in said) == (whole > 0)


@pytest.mark.parametrize("junk", [b"\x00" * 64, b"{}\n", b"[1]\n", b"\xff\xfe\n", b'{"index": 1, "prompt": "x"}\n'])
def test_what_is_no_line_of_this_generation_is_dropped(
    tmp_path: Path, junk: bytes, undisturbed: tuple[bytes, list[Any]]
) -> None:
    content, result = undisturbed
    first_batch = b"".join(line + b"\n" for line in content.split(b"\n")[:BATCH])
    output, said, found = begin_again(tmp_path, first_batch + junk)
    assert output.read_bytes() == content
    assert found == result
    assert "dropped" in said


def test_whole_batches_are_not_written_again(tmp_path: Path, undisturbed: tuple[bytes, list[Any]]) -> None:
    # The negative control: what is reused is really read from the file.
    content, _ = undisturbed
    lines = content.decode("utf-8").split("\n")[: 2 * BATCH]
    line = json.loads(lines[0])
    del line["check"]
    line["continuation"] = "kept as it is " + line["continuation"]
    lines[0] = json.dumps({**line, "check": check_of(line)}, ensure_ascii=False)
    output, _, found = begin_again(tmp_path, "".join(line + "\n" for line in lines).encode("utf-8"))
    assert "kept as it is" in output.read_text(encoding="utf-8").split("\n")[0]
    assert [done.text.startswith("kept as it is") for done in found].count(True) == 1


@pytest.mark.parametrize("changed", ['"continuation": "', '"tokens": ', '"check": "'])
def test_a_line_that_has_changed_is_not_learnt_from(
    tmp_path: Path, undisturbed: tuple[bytes, list[Any]], changed: str
) -> None:
    content, result = undisturbed
    lines = content.decode("utf-8").splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if json.loads(line)["continuation"])
    lines[number] = lines[number].replace(changed, f"{changed}1", 1)
    output, said, found = begin_again(tmp_path, "".join(lines).encode("utf-8"))
    assert "are dropped and written again" in said
    assert output.read_bytes() == content
    assert found == result


def test_a_full_disk_leaves_whole_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple[bytes, list[Any]]
) -> None:
    content, result = undisturbed
    output = tmp_path / "generated.jsonl"
    real_fsync, synced = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal synced
        if os.path.samestat(os.fstat(descriptor), output.stat()) if output.exists() else False:
            synced += 1
            if synced == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DistillkitError, match=r"no space left while writing .*generated\.jsonl"):
        write(output)
    assert output.read_bytes().count(b"\n") == 2 * BATCH
    assert content.startswith(output.read_bytes())
    assert write(output) == result
    assert output.read_bytes() == content
