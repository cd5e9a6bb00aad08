"""`subprocess` for Python programs that need torch and transformers: importing these takes seconds, a fork takes milliseconds.

    warm_python.run([sys.executable, "-m", "distillkit", "--help"], env=…, capture_output=True)
    warm_python.Popen([sys.executable, "-c", PROGRAM, "argument"], cwd=…, stderr=subprocess.PIPE)

A server that has imported the libraries forks a child for each program. The child is a process like any other: it has its
own pid, streams, folder, environment, signals and exit status, and runs the very module, program or script. What a fork
cannot have is another environment while the libraries are imported. Of the variables that they read then, HF_HOME,
HF_ENDPOINT and HF_HUB_OFFLINE are put right in the child (test_warm_python.py compares it with a new interpreter); a
program with any other difference, and one that wants more than a list of words, is given an interpreter of its own.

What a program sees of its own start, such as what it imports and when, and the order of sets of strings from one process
to another, are for tests that use `subprocess`.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import importlib.machinery
import inspect
import io
import json
import os
import pkgutil
import re
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

# What the stages import, so that a child finds it in memory; all modules of distillkit are, too.
PRELOADED = (
    "datasets", "accelerate", "torch._dynamo", "transformers.models.gpt2.modeling_gpt2", "transformers.models.auto.tokenization_auto",
    "transformers.convert_slow_tokenizer", "transformers.generation.utils", "transformers.integrations.mistral", "matplotlib.style",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "PIL.JpegImagePlugin", "numpy.ctypeslib",
    "pydantic.type_adapter", "torch.utils.serialization", "sentencepiece", "tokenizers.trainers",
    "transformers.tokenization_utils_sentencepiece", "transformers.models.auto.modeling_auto", "encodings.idna", "encodings.utf_8_sig",
)  # fmt: skip
# Variables that nobody reads while these are imported. Every other one has to be as it is for the server.
_READ_LATER = re.compile(
    r"DISTILLKIT_\w+|PYTEST_\w+|_TORCHINDUCTOR_\w+|HF_XET_\w+|NO_COLOR|FORCE_COLOR|TERM|COLUMNS|LINES|PWD|TMPDIR|NO_PROXY|no_proxy|HF_TOKEN"
    r"|PATH|SHLVL|OLDPWD|_|GITHUB_\w+|DISTILLKIT|CUDA_VISIBLE_DEVICES|TOKENIZERS_PARALLELISM|TORCHINDUCTOR_CACHE_DIR|WORLD_SIZE|RANK|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT"
)
# Programs for which these differ get a server of their own, until `close`: see forked_cli.py.
_OF_SERVERS = ("TORCH_CPP_LOG_LEVEL", "HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR")
# Put right in the child: see `_Relocation`, and `_enter` for PYTHONPATH.
_PUT_RIGHT = ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "PYTHONPATH")
_LIBRARIES = ("huggingface_hub", "transformers", "datasets", "accelerate", "distillkit")
_PUBLIC_HUB = "https://huggingface.co"


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen`, forked from a server where that comes to the same.

    Attributes:
        forked: whether it was.
    """

    forked = False
    _status: int | None = None

    def _execute_child(self, *given: Any) -> None:
        # Private, but the one place below which the streams, `communicate` and `with` are those of the standard library.
        values = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        server = None if _needs_more(values) else _server_for(values["env"])
        if server is None:
            super()._execute_child(*given)  # type: ignore[misc]
            return
        ends = [values["p2cread"], values["c2pwrite"], values["errwrite"]]
        streams = [number if end == -1 else end for number, end in enumerate(ends)]
        try:
            self.pid, self._status = server.start(
                values["args"][1:], values["env"], values["cwd"], streams, session=bool(values["start_new_session"])
            )
        finally:
            self._close_pipe_fds(  # type: ignore[attr-defined]
                *(values[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"))
            )
        self.forked = self._child_created = True

    def _try_wait(self, flags: int) -> tuple[int, int]:
        """As os.waitpid(self.pid, flags), which only the server may call."""
        if self._status is None:
            return super()._try_wait(flags)  # type: ignore[misc]
        if not select.select([self._status], [], [], 0 if flags & os.WNOHANG else None)[0]:
            return 0, 0
        said = os.read(self._status, 4)
        os.close(self._status)
        self._status = None
        if not said:
            raise AssertionError("the server has ended")
        return self.pid, struct.unpack("i", said)[0]

    def _internal_poll(self, *given: Any, **named: Any) -> int | None:
        if not self.forked:
            return super()._internal_poll(*given, **named)  # type: ignore[misc]
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if not self.forked:
            return super()._wait(timeout=timeout)  # type: ignore[misc]
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._internal_poll()  # type: ignore[return-value]


def run(
    command: Sequence[object],
    *,
    input: str | bytes | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` of a Python program: see the module."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen([str(word) for word in command], **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def _needs_more(values: Mapping[str, Any]) -> bool:
    """Whether a call of Popen asks for something that a child of a server does not have."""
    words = values["args"]
    if not hasattr(os, "fork") or isinstance(words, (str, bytes)) or len(words) < 2 or words[0] != sys.executable:
        return True
    if not ((words[1] in ("-m", "-c") and len(words) > 2) or words[1].endswith(".py")):
        return True
    usual = {
        "executable": (None,), "preexec_fn": (None,), "shell": (False,), "pass_fds": ((),), "umask": (-1,),
        "gid": (None,), "gids": (None,), "uid": (None,), "process_group": (None, -1),
    }  # fmt: skip
    return any(name in values and values[name] not in allowed for name, allowed in usual.items())


# --- on the side of the tests -------------------------------------------------------------------------------------------

_servers: dict[tuple[str | None, ...], _Server] = {}


def _server_for(environment: Mapping[str, str] | None) -> _Server | None:
    """The server for programs with this environment; None if they need an interpreter of their own."""
    wanted = dict(os.environ if environment is None else environment)
    if "HF_HOME" not in wanted or wanted.get("HF_ENDPOINT", _PUBLIC_HUB).endswith("/"):
        return None
    key = _key(wanted)
    usual = {name: value for name, value in _at_first.items() if name not in _OF_SERVERS}
    usual |= {name: value for name, value in zip(_OF_SERVERS, key, strict=True) if value is not None}
    different = {name for name in wanted.keys() | usual.keys() if wanted.get(name) != usual.get(name)}
    if any(name not in _PUT_RIGHT and not _READ_LATER.fullmatch(name) for name in different):
        return None
    if key not in _servers:
        _servers[key] = _Server(usual)
    return _servers[key]


def _key(environment: Mapping[str, str]) -> tuple[str | None, ...]:
    return tuple(environment.get(name) for name in _OF_SERVERS)


def close(environment: Mapping[str, str]) -> None:
    """End the server for programs with this environment, unless it is the one for usual programs."""
    key = _key(environment)
    if key in _servers and key != _key(_at_first):
        _servers.pop(key).close()


@atexit.register
def _close_all() -> None:
    while _servers:
        _servers.popitem()[1].close()


class _Server:
    """A process that has the libraries in memory, and the wire to it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        import distillkit

        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        self._package = str(Path(distillkit.__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env={**environment, **_Relocation.variables(), "PYTHONPATH": self._package},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
        )  # fmt: skip
        theirs.close()

    def start(
        self,
        words: Sequence[str],
        environment: Mapping[str, str] | None,
        folder: str | os.PathLike[str] | None,
        streams: Sequence[int],
        *,
        session: bool,
    ) -> tuple[int, int]:
        """Begin a program: its pid, and a descriptor that its wait status can be read from when it has ended."""
        request = {
            "words": list(words), "environment": dict(os.environ if environment is None else environment),
            "folder": os.fspath(folder) if folder is not None else str(Path.cwd()), "session": session,
        }  # fmt: skip
        content = json.dumps(request).encode()
        status, theirs = os.pipe()
        try:
            with self._lock:
                _send(self._socket, struct.pack("I", len(content)), [*streams, theirs])
                self._socket.sendall(content)
                (pid,) = struct.unpack("i", _received(self._socket, 4))
        finally:
            os.close(theirs)
        return pid, status

    def close(self) -> None:
        self._socket.close()
        self._process.wait(60)


def _send(wire: socket.socket, content: bytes, descriptors: Sequence[int]) -> None:
    wire.sendmsg([content], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])


def _received(wire: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = wire.recv(size - len(content))
        if not part:
            raise EOFError("the server has ended")
        content += part
    return content


# --- in the server ---------------------------------------------------------------------------------------------------


class _Relocation:
    """Where the libraries hold what HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE said when they were imported.

    The server imports them with a folder and an address that are nobody's, so that whatever contains one is known.
    """

    HOME = "/nobodys/hf-home"
    HUB = "http://nobodys-hub.invalid"
    OFFLINE = object()

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Of the server."""
        return {"HF_HOME": cls.HOME, "HF_ENDPOINT": cls.HUB, "HF_HUB_OFFLINE": "0"}

    def __init__(self) -> None:
        # How to set each value, and what it was.
        self._places: list[tuple[Callable[[Any], None], Any]] = []
        seen: set[int] = set()
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in _LIBRARIES and isinstance(module, types.ModuleType):
                self._look_through(vars(module), functools.partial(vars(module).__setitem__), seen)
                for flag in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
                    if flag in vars(module):
                        self._places.append((functools.partial(vars(module).__setitem__, flag), self.OFFLINE))

    def _look_through(self, names: Mapping[str, Any], put: Callable[[str, Any], None], seen: set[int]) -> None:
        for name, value in list(names.items()):
            if self._concerned(value):
                self._places.append((functools.partial(put, name), value))
            elif isinstance(value, (type, types.FunctionType)) and id(value) not in seen:
                seen.add(id(value))
                if (value.__module__ or "").partition(".")[0] not in _LIBRARIES:
                    continue
                if isinstance(value, type):
                    self._look_through(vars(value), functools.partial(setattr, value), seen)
                    continue
                for attribute in ("__defaults__", "__kwdefaults__"):
                    if self._concerned(getattr(value, attribute)):
                        self._places.append((functools.partial(setattr, value, attribute), getattr(value, attribute)))

    def _concerned(self, value: Any) -> bool:
        if isinstance(value, (str, PurePath)):
            return self.HOME in str(value) or self.HUB in str(value)
        if (
            type(value) is dict
        ):  # Of others, such as transformers' tables of models, a look would import what they name.
            return any(map(self._concerned, value.values()))
        return type(value) in (list, tuple, set, frozenset) and any(map(self._concerned, value))

    def apply(self, environment: Mapping[str, str]) -> None:
        """Give every place what it has in a process with this environment."""
        home, hub = os.path.expanduser(environment["HF_HOME"]), environment.get("HF_ENDPOINT", _PUBLIC_HUB)  # noqa: PTH111

        offline = environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")

        def put_right(value: Any) -> Any:
            if value is self.OFFLINE:
                return offline
            if isinstance(value, str):
                return value.replace(self.HOME, home).replace(self.HUB, hub)
            if isinstance(value, PurePath):
                return type(value)(put_right(str(value)))
            if isinstance(value, dict):
                return {key: put_right(item) for key, item in value.items()}
            return type(value)(map(put_right, value)) if isinstance(value, (list, tuple, set, frozenset)) else value

        for put, value in self._places:
            put(put_right(value))


def _serve(wire: socket.socket) -> None:
    warm_up()
    relocation = _Relocation()
    # Of an interpreter without PYTHONPATH. Not the rest of this one's: `site` adds no folder that PYTHONPATH has.
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    listed = subprocess.check_output(
        [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"], env=bare
    )
    own_path = json.loads(listed)
    # The lock of progress bars is one of all forked processes: one that is killed while it has it would stop the others for good.
    os.register_at_fork(after_in_child=lambda: sys.modules["tqdm"].tqdm.set_lock(threading.RLock()))
    # Or the first collection of every child would copy all of this memory.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Of the terminal: the tests end, and the wire with them.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([wire, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            for pid, status in _ended():
                said = statuses.pop(pid)
                with contextlib.suppress(BrokenPipeError):
                    os.write(said, struct.pack("i", status))
                os.close(said)
        if wire not in ready:
            continue
        header, attached, _, _ = wire.recvmsg(4, socket.CMSG_SPACE(4 * struct.calcsize("i")))
        if not header:
            return
        descriptors = list(struct.unpack("4i", attached[0][2]))
        request = json.loads(_received(wire, struct.unpack("I", header)[0]))
        pid = os.fork()
        if pid == 0:
            for descriptor in (wire.detach(), woken, wake, *statuses.values(), descriptors.pop()):
                os.close(descriptor)
            _become(request, descriptors, relocation, own_path)
        statuses[pid] = descriptors.pop()
        for descriptor in descriptors:
            os.close(descriptor)
        wire.sendall(struct.pack("i", pid))


def warm_up() -> None:
    """Once here instead of once in every child: imports, and tables that transformers makes when they are first asked for."""
    import distillkit

    for name in PRELOADED:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):  # Of the extra "adapters"; three seconds of a command.
        importlib.import_module("peft")
    for module in pkgutil.walk_packages(distillkit.__path__, "distillkit."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    conversion_mapping = importlib.import_module("transformers.conversion_mapping")
    conversion_mapping.get_checkpoint_conversion_mapping("gpt2")


def _ended() -> Iterator[tuple[int, int]]:
    """Children that have ended since the last time, with their wait status."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


# --- in the child ----------------------------------------------------------------------------------------------------


def _become(
    request: Mapping[str, Any], streams: Sequence[int], relocation: _Relocation, own_path: Sequence[str]
) -> None:
    """Be an interpreter that was started with these words; does not return."""
    code = 1
    try:
        _enter(request, streams, relocation, own_path)
        code = _exit_code(functools.partial(_execute, request["words"]))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _enter(
    request: Mapping[str, Any], streams: Sequence[int], relocation: _Relocation, own_path: Sequence[str]
) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["session"]:
        os.setsid()
    # First away from 0, 1 and 2, which any of them may be.
    moved = [_moved(stream) for stream in streams]
    for number, descriptor in enumerate(moved):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _open_streams()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    time.tzset()
    relocation.apply(os.environ)
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()  # Or all children would draw the same.
    # As a new interpreter makes it, but for its first entry, see `_execute`.
    before, path = set(sys.path), os.environ.get("PYTHONPATH", "")
    sys.path[:] = dict.fromkeys([*(path.split(os.pathsep) if path else []), *own_path])
    importlib.invalidate_caches()
    # The server has no threads that this process could wait for.
    vars(sys.modules["distillkit.process_state"])["_forked"] = False
    # What another folder has, such as an extension of distillkit, may be looked up when distillkit is imported.
    if set(sys.path) != before or not _finds_the_package_in_memory(request["words"][0]):
        for name in [name for name in sys.modules if name.partition(".")[0] == "distillkit"]:
            del sys.modules[name]


def _finds_the_package_in_memory(how: str) -> bool:
    """Whether a program that begins like this would import the very distillkit that this process has."""
    first = Path.cwd() if how in ("-m", "-c") else Path(how).resolve().parent
    found = importlib.machinery.PathFinder.find_spec("distillkit", [str(first), *sys.path])
    here = sys.modules["distillkit"].__file__
    return found is not None and found.origin is not None and here is not None and Path(found.origin).samefile(here)


def _moved(descriptor: int) -> int:
    import fcntl

    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return moved


def _open_streams() -> None:
    """As a new interpreter opens them; in which encoding, and whether it keeps lines back, does not change."""
    for number, name, mode in ((0, "stdin", "rb"), (1, "stdout", "wb"), (2, "stderr", "wb")):
        old = getattr(sys, f"__{name}__")
        at_once = name != "stdin" and old.write_through
        binary = open(number, mode, 0 if at_once else -1, closefd=False)  # noqa: SIM115
        stream = io.TextIOWrapper(
            binary, old.encoding, old.errors, newline="\n" if name != "stdin" else None, write_through=at_once,
            line_buffering=not at_once and (name == "stderr" or binary.isatty()),
        )  # fmt: skip
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _execute(words: Sequence[str]) -> None:
    how, *rest = words
    if how == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    else:
        sys.path.insert(0, str(Path(how).resolve().parent))
        sys.argv = [how, *rest]
        runpy.run_path(how, run_name="__main__")


def _exit_code(main: Callable[[], None]) -> int:
    """Call `main` and end as the interpreter does: the same code, the same things done and said on the way."""
    code = 0
    try:
        main()
    except SystemExit as ended:
        if ended.code is not None and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
        code = 0 if ended.code is None else ended.code & 0xFF if isinstance(ended.code, int) else 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored on flushing sys.stdout:\n{type(error).__name__}: {error}", file=sys.stderr)
        code = 120
    return code


if __name__ == "__main__":
    # Not the folder of the tests, which no program has.
    del sys.path[0]
    _serve(socket.socket(fileno=int(sys.argv[1])))
else:
    # What every server has: the variables of the session, before any test changes one.
    _at_first = {name: value for name, value in os.environ.items() if name not in _PUT_RIGHT}
