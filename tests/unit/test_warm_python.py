"""A program that is forked from the server of warm_python.py is what it is in an interpreter of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm_python

import distillkit

Environment = Callable[..., dict[str, str]]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")

# What it is, as far as it can tell.
ABOUT = """
import json, os, signal, sys, tempfile
print(json.dumps({
    "argv": sys.argv, "name": __name__, "main": vars(sys.modules["__main__"])["__name__"], "path": [os.path.abspath(entry) for entry in sys.path],
    "folder": os.getcwd(), "environment": dict(os.environ), "group": os.getpgrp(), "session": os.getsid(0),
    "mask": os.umask(0), "descriptors": sorted(os.listdir("/proc/self/fd"))[:3], "many": len(os.listdir("/proc/self/fd")),
    "handlers": [repr(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)],
    "streams": [(s.encoding, s.errors, s.isatty(), s.line_buffering) for s in (sys.stdin, sys.stdout, sys.stderr)],
    "said": input(), "temporary": tempfile.gettempdir(),
}))
"""
PROGRAMS = {
    "zero": "print('done')",
    "code": "raise SystemExit(3)",
    "large code": "raise SystemExit(259)",
    "words": "raise SystemExit('no such thing')",
    "error": "1 / 0",
    "interrupt": "raise KeyboardInterrupt",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "at once": "import os; print('lost', end=''); os._exit(5)",
    "at exit": "import atexit; atexit.register(print, 'goodbye'); print('unfinished', end='')",
    "thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.05), print('later'))).start()",
    "child": "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'raise SystemExit(4)']).returncode)",
    "fork": "import os; pid = os.fork(); os._exit(0) if pid == 0 else print(os.waitpid(pid, 0)[1])",
}
# Everything in the libraries that is plain enough to be compared.
VALUES = """
import importlib, json, pathlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
def plain(value):
    return isinstance(value, (str, bool, int, float, pathlib.PurePath, type(None))) or (
        type(value) in (list, tuple, set) and all(map(plain, value)))
def listed(names, prefix):
    return {f"{prefix}.{name}": repr(sorted(map(repr, value)) if isinstance(value, set) else value)
            for name, value in names.items() if plain(value) and not name.startswith("__")}
found = {}
for name in sys.argv[1:]:
    found |= listed(vars(sys.modules[name]), name)
    for item, value in list(vars(sys.modules[name]).items()):
        if isinstance(value, type) and value.__module__ == name:
            found |= listed(vars(value), f"{name}.{item}")
        for attribute in ("__defaults__", "__kwdefaults__"):
            given = getattr(value, attribute, None) if type(value).__name__ == "function" else None
            if given:
                found[f"{name}.{item}.{attribute}"] = repr({k: v for k, v in dict(enumerate(given) if isinstance(given, tuple) else given).items() if plain(v)})
print(json.dumps(found))
"""
LIBRARIES = (
    "huggingface_hub.constants", "huggingface_hub.file_download", "huggingface_hub.hf_api", "huggingface_hub._snapshot_download",
    "huggingface_hub.hf_file_system", "huggingface_hub.utils._http", "huggingface_hub.utils._auth", "huggingface_hub.utils._headers",
    "huggingface_hub.utils._cache_manager", "datasets.config", "datasets.builder", "datasets.load", "datasets.utils.file_utils",
    "datasets.utils.hub", "transformers.utils.hub", "transformers.dynamic_module_utils",
)  # fmt: skip


def both(
    command: list[str], **options: Any
) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
    """The finished program, forked and in an interpreter of its own."""
    forked = warm_python.run(command, capture_output=True, encoding="utf-8", **options)
    return forked, subprocess.run(command, capture_output=True, encoding="utf-8", check=False, **options)


def test_it_is_where_it_was_started_and_what_it_was_called(cli_env: Environment, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ABOUT, "one", "two words"]
    forked, own = both(command, env=cli_env(DISTILLKIT_SEED="3", TMPDIR=str(tmp_path)), cwd=tmp_path, input="hello\n")
    assert forked.stderr == own.stderr == ""
    assert json.loads(forked.stdout) == json.loads(own.stdout)


def test_another_pythonpath_takes_nothing_else_away(cli_env: Environment, tmp_path: Path) -> None:
    shutil.copytree(Path(distillkit.__file__).parent, tmp_path / "distillkit")
    program = "import distillkit, rich, sys; print(distillkit.__file__, rich.__file__, sys.path)"
    forked, own = both([sys.executable, "-c", program], env=cli_env(PYTHONPATH=str(tmp_path)))
    assert forked.stderr == own.stderr == ""
    assert forked.stdout == own.stdout
    assert str(tmp_path) in forked.stdout


@pytest.mark.parametrize("how", ["module", "file"])
def test_modules_and_files(cli_env: Environment, tmp_path: Path, how: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "program.py").write_text(
        "import beside, sys; print(sys.argv, __name__, beside.__file__, __file__)\n"
    )
    (tmp_path / "one" / "beside.py").write_text("")
    words, folder = (["-m", "program"], "one") if how == "module" else ([str(tmp_path / "one" / "program.py")], ".")
    forked, own = both([sys.executable, *words, "-x"], env=cli_env(), cwd=tmp_path / folder)
    assert (
        (forked.returncode, forked.stdout, forked.stderr)
        == (own.returncode, own.stdout, own.stderr)
        == (0, own.stdout, "")
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_ends_alike(cli_env: Environment, name: str) -> None:
    forked, own = both([sys.executable, "-c", PROGRAMS[name]], env=cli_env(), stdin=subprocess.DEVNULL)
    assert (forked.returncode, forked.stdout) == (own.returncode, own.stdout)
    # Below the program there is more of it.
    frames = re.compile(r'  File "[^<].*\n(    .*\n)*')
    assert frames.sub("", forked.stderr) == frames.sub("", own.stderr)


def test_a_reader_that_is_gone(cli_env: Environment) -> None:
    codes = []
    for start in (warm_python.Popen, subprocess.Popen):
        reading, writing = os.pipe()
        os.close(reading)
        process: Any = start(
            [sys.executable, "-c", "print('nobody')"], stdout=writing, stderr=subprocess.DEVNULL, env=cli_env()
        )
        os.close(writing)
        codes.append(process.wait(60))
    assert codes[0] == codes[1] != 0


def test_it_can_be_waited_for_signalled_and_killed(cli_env: Environment) -> None:
    program = (
        "import signal, time; print('here', flush=True); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"
    )
    with warm_python.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=cli_env()
    ) as process:
        assert process.forked
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        other = warm_python.run(
            [sys.executable, "-c", "print('meanwhile')"], env=cli_env(), capture_output=True, text=True
        )
        assert other.stdout == "meanwhile\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == process.poll() == -signal.SIGKILL


def test_a_session_of_its_own(cli_env: Environment) -> None:
    program = "import os; print(os.getpid() == os.getsid(0) == os.getpgrp())"
    for session in (True, False):
        done = warm_python.run(
            [sys.executable, "-c", program], env=cli_env(), start_new_session=session, capture_output=True, text=True
        )
        assert done.stdout.strip() == str(session)


@pytest.mark.parametrize(
    "variables", [{"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}, {}], ids=["another hub", "the hub"]
)
def test_the_libraries_are_those_of_its_environment(cli_env: Environment, variables: dict[str, str]) -> None:
    """Where they keep files, whom they ask and whether at all: what they read when they are imported."""
    modules = LIBRARIES if variables else [name for name in LIBRARIES if name.startswith("huggingface_hub")]
    # Set by lm_eval when an earlier test imports it, and not put right: nothing is transferred by it here.
    environment = cli_env(**variables, HF_XET_HIGH_PERFORMANCE=None)
    forked, own = (json.loads(done.stdout) for done in both([sys.executable, "-c", VALUES, *modules], env=environment))
    # Drawn, counted or looked up by each process for itself.
    differ = {name for name in forked.keys() | own.keys() if forked.get(name) != own.get(name)}
    files = "huggingface_hub.hf_file_system.HfFileSystem"
    assert differ <= {"transformers.utils.hub.SESSION_ID", f"{files}._pid", f"{files}._latest"}
    assert len(own) > 100
    assert not [name for name, value in forked.items() if "nobodys" in value]


def test_draws_are_its_own(cli_env: Environment) -> None:
    program = "import numpy, random, tempfile; print(numpy.random.rand(), random.random(), tempfile.mktemp())"
    said = [
        warm_python.run([sys.executable, "-c", program], env=cli_env(), capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert not set(said[0].split()) & set(said[1].split())


@pytest.mark.parametrize(
    "variables",
    [
        {"OMP_NUM_THREADS": "2"},
        {"HF_HUB_CACHE": "/x"},
        {"PYTHONUTF8": "1"},
        {"HF_HOME": None},
        {"HF_ENDPOINT": "http://127.0.0.1:9/"},
    ],
)
def test_what_is_read_on_the_way_in_gets_an_interpreter_of_its_own(
    cli_env: Environment, variables: dict[str, str | None]
) -> None:
    with warm_python.Popen([sys.executable, "-c", "raise SystemExit(7)"], env=cli_env(**variables)) as process:
        assert not process.forked
        assert process.wait(60) == 7


def test_the_one_in_memory_is_not_imported_again(cli_env: Environment) -> None:
    """Or every child of the tests would take a second more."""
    program = "import sys; print('distillkit.training.trainer' in sys.modules)"
    done = warm_python.run([sys.executable, "-c", program], env=cli_env(), capture_output=True, text=True)
    assert done.stdout == "True\n"


def test_another_distillkit_is_not_the_one_in_memory(cli_env: Environment, tmp_path: Path) -> None:
    (tmp_path / "distillkit").mkdir()
    (tmp_path / "distillkit" / "__init__.py").write_text("print('another')")
    (tmp_path / "distillkit" / "__main__.py").write_text("")
    (tmp_path / "elsewhere").mkdir()
    for options in (
        {"env": cli_env(PYTHONPATH=str(tmp_path)), "cwd": tmp_path / "elsewhere"},
        {"env": cli_env(), "cwd": tmp_path},
    ):
        done = warm_python.run([sys.executable, "-m", "distillkit"], capture_output=True, text=True, **options)
        assert (done.stdout, done.stderr) == ("another\n", "")


def test_one_that_is_killed_keeps_nothing_from_the_others(cli_env: Environment) -> None:
    holding = "import time, tqdm; tqdm.tqdm.get_lock().acquire(); print('held', flush=True); time.sleep(100)"
    with warm_python.Popen(
        [sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True, env=cli_env()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
    progress = "import tqdm; print(sum(1 for _ in tqdm.tqdm(range(3))))"
    done = warm_python.run([sys.executable, "-c", progress], env=cli_env(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "3\n"
