"""The user's own program that judges answers: a real process, and everything that such a process may do wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from distillkit.errors import DistillkitError, Interrupted, PreconditionError
from distillkit.interrupts import graceful_signals
from distillkit.teachers.answer_hook import AnswerHook, find_command

GOOD = """
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    right = asked["known_answer"] in asked["answer"]
    print("keep" if right else f"drop {asked['known_answer']} ≠ {asked['answer']} ({os.getpid()})")
"""


def program(tmp_path: Path, source: str) -> list[str]:
    path = tmp_path / "a program.py"
    path.write_text(source, encoding="utf-8")
    return [sys.executable, str(path)]


def asked(answer: str, known: str = "42") -> dict[str, object]:
    return {"prompt": [{"role": "user", "content": "6·7?\n"}], "answer": answer, "known_answer": known, "finish": "eos"}


def test_it_is_started_once_and_judges_line_by_line(tmp_path: Path) -> None:
    with AnswerHook(program(tmp_path, GOOD)) as hook:
        assert hook.judge(asked("It is 42.")) == (True, "")
        said = [hook.judge(asked(answer)) for answer in ("41", "сорок один", "x" * 300_000)]
    assert not any(keeps for keeps, _ in said)
    assert said[0][1].startswith("42 ≠ 41 (")
    assert len({why.rpartition("(")[2] for _, why in said[:1] + said[2:]}) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print('yes')", r"said 'yes' (instead of keep or drop|before it was asked again)"),
        ("import sys\ninput()\nprint('KEEP')\nsys.stdin.read()", r"said 'KEEP' instead of keep or drop"),
        ("input()\nprint()\ninput()", r"said '' instead of keep or drop"),
        ("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe\\n')", r"said .+ (instead of keep or drop|before it was asked again)"),
        ("input()\nraise KeyError('known')", r"ended with status 1 before it was done: KeyError: 'known'"),
        ("import os, signal\ninput()\nos.kill(os.getpid(), signal.SIGKILL)", r"ended with status -9 before it was done"),
        ("", r"ended with status 0 before it was done"),
        ("import time\ninput()\ntime.sleep(60)", r"said nothing within 1 s"),
        ("import time\ntime.sleep(60)", r"said nothing within 1 s"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_an_error_of_one_line(tmp_path: Path, source: str, message: str) -> None:
    hook = AnswerHook(program(tmp_path, source), seconds=1.0 if "sleep" in source else 60.0)
    with pytest.raises(DistillkitError, match=message) as caught, hook:
        hook.judge(asked("x" * 1_000_000))
    assert "\n" not in str(caught.value)
    assert "a program.py" in str(caught.value)
    assert "keep or drop" in (caught.value.hint or "")
    assert hook._process.returncode is not None


def judge_slowly(hook: AnswerHook) -> None:
    hook.judge(asked("1"))
    time.sleep(0.5)
    hook.judge(asked("2"))


def test_two_lines_for_one_answer_are_refused(tmp_path: Path) -> None:
    source = "for _ in range(2):\n    input()\n    print('keep')\n    print('drop', flush=True)"
    with pytest.raises(DistillkitError, match="said 'drop'"), AnswerHook(program(tmp_path, source)) as hook:
        judge_slowly(hook)
    late = "input()\nprint('keep')\nimport sys\nsys.stdin.read()\nprint('and more')"
    with pytest.raises(DistillkitError, match="said 'and more' after"), AnswerHook(program(tmp_path, late)) as hook:
        hook.judge(asked("1"))


def test_an_error_at_its_end_is_one(tmp_path: Path) -> None:
    source = "import sys\nfor line in sys.stdin:\n    print('keep')\nsys.exit('the file is full')"
    with (
        pytest.raises(DistillkitError, match=r"status 1 .*the file is full"),
        AnswerHook(program(tmp_path, source)) as hook,
    ):
        assert hook.judge(asked("1")) == (True, "")


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(PreconditionError, match="no program 'no-such-program'"):
        find_command(["no-such-program", "x"])
    find_command([sys.executable])
    with pytest.raises(PreconditionError, match="cannot be started: No such file"):
        AnswerHook(["/nowhere/program"])


def test_a_signal_ends_the_waiting_and_the_program(tmp_path: Path) -> None:
    hook = AnswerHook(program(tmp_path, "import time\ntime.sleep(60)"))
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(Interrupted), graceful_signals(), hook:
        hook.judge(asked("1"))
    timer.join()
    assert time.monotonic() - begun < 20
    assert hook._process.returncode == -signal.SIGKILL


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "chat.md").read_text(encoding="utf-8")
    source = page.split("```python\n")[1].split("```")[0]
    assert source.startswith('"""same_number.py')
    with AnswerHook(program(tmp_path, source)) as hook:
        assert hook.judge(asked("6 times 7 is 42.")) == (True, "")
        assert hook.judge(asked("It is 1,042", "1042.0")) == (True, "")
        assert hook.judge(asked("42? No: 41")) == (False, "41.0 is not 42.0")
        assert hook.judge(asked("no idea")) == (False, "None is not 42.0")
        assert hook.judge({**asked("42"), "known_answer": None}) == (False, "42.0 is not None")
