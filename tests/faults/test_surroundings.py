"""What lies around a run changes nothing of its student, and a run changes nothing of what lies around it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_python
from small_runs import SETTINGS, make_models, student_digest

from distillkit import distill_models, process_environment

# Each would make another student, an error or an endless wait, if the libraries saw it.
VARIABLES: dict[str, dict[str, str]] = {
    "precision": {"ACCELERATE_MIXED_PRECISION": "bf16"},
    "accelerate": {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
        "ACCELERATE_DYNAMO_MODE": "max-autotune", "ACCELERATE_TORCH_DEVICE": "meta", "ACCELERATE_USE_CPU": "0",
        "TRANSFORMERS_SDPA_FORCE_GQA": "1", "FLASH_ATTENTION_DETERMINISTIC": "1",
    },
    "many devices": {
        "ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
        "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_USE_MEGATRON_LM": "true",
        "ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2",
    },
    "torchrun": {
        "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9",
        "TORCHELASTIC_RUN_ID": "none",
    },
    "mpirun": {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
}  # fmt: skip
# Read when torch and transformers are loaded.
WHEN_LOADED = {
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "NVIDIA_TF32_OVERRIDE": "1", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "TORCH_COMPILE_DISABLE": "1", "XLA_USE_BF16": "1", "PYTORCH_JIT": "0", "TORCH_MKLDNN_MATMUL_MIN_DIM": "1",
}  # fmt: skip


class Runs:
    """Small runs of one configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.models, self._number = folder, make_models(folder / "models"), 0
        self.digest = self.distil()

    def settings(self, **changes: Any) -> dict[str, Any]:
        self._number += 1
        return {
            "teacher_model_path": str(self.models / "teacher"), "student_model_path": str(self.models / "student"),
            "dataset_path": str(self.models / "texts.txt"), "output_dir": str(self.folder / "out"),
            "folder_name": f"run-{self._number}", "quiet": True, **SETTINGS, **changes,
        }  # fmt: skip

    def distil(self, **changes: Any) -> str:
        """The digest of the student of one more run."""
        return student_digest(distill_models(**self.settings(**changes)).run_directory)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Runs(tmp_path_factory.mktemp("surroundings"))
    torch.set_num_threads(threads)


# --- what lies around a run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIABLES)
def test_variables_of_launchers_make_no_other_student(runs: Runs, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable, value in VARIABLES[name].items():
        monkeypatch.setenv(variable, value)
    assert runs.distil() == runs.digest


def test_without_setting_them_aside_the_student_would_be_another(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the precision would be accelerate's."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setattr(process_environment, "_OF_TRAINING", process_environment._ROUNDING)
    assert runs.distil() != runs.digest


def test_variables_that_are_read_when_libraries_are_loaded(
    runs: Runs, cli_env: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """And accelerate's configuration file, which is read by its own launcher alone."""
    home = tmp_path / "hf_home"
    (home / "accelerate").mkdir(parents=True)
    (home / "accelerate" / "default_config.yaml").write_text("mixed_precision: bf16\nnum_processes: 4\n")
    program = "import json, sys, distillkit; print(distillkit.distill_models(**json.loads(sys.argv[1])).run_directory)"
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(runs.settings())],
        env=cli_env(**WHEN_LOADED, HF_HOME=str(home), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert student_digest(Path(done.stdout.strip())) == runs.digest


@pytest.mark.parametrize(
    "state", ["dtype", "grad", "inference", "autocast", "device", "products", "accelerator", "seeds"]
)
def test_what_the_caller_has_set_makes_no_other_student(runs: Runs, state: str) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    precision = torch.get_float32_matmul_precision()
    try:
        if state == "dtype":
            torch.set_default_dtype(torch.bfloat16)
        elif state == "products":
            torch.set_float32_matmul_precision("medium")
        elif state == "accelerator":
            Accelerator(mixed_precision="bf16", cpu=True)
        elif state == "seeds":
            torch.manual_seed(1234)
        surroundings: Any = {
            "grad": torch.no_grad, "inference": torch.inference_mode, "device": lambda: torch.device("meta"),
            "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        }.get(state, torch.enable_grad)  # fmt: skip
        with surroundings():
            assert runs.distil() == runs.digest
            assert torch.is_inference_mode_enabled() == (state == "inference")
            assert torch.is_autocast_enabled("cpu") == (state == "autocast")
            assert torch.is_grad_enabled() == (state not in ("grad", "inference"))
            assert torch.get_default_device().type == ("meta" if state == "device" else "cpu")
        assert torch.get_default_dtype() == (torch.bfloat16 if state == "dtype" else torch.float32)
        assert torch.get_float32_matmul_precision() == ("medium" if state == "products" else precision)
        if state == "accelerator":
            assert AcceleratorState().mixed_precision == "bf16"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision(precision)
        AcceleratorState._reset_state(reset_partial_state=True)


# --- what a run leaves behind ----------------------------------------------------------------------------------------


def test_the_process_of_the_caller_is_left_as_it_was(runs: Runs, cli_env: Callable[..., dict[str, str]]) -> None:
    """After success, after a refusal and after a failure in the training; twice, in a thread, inside an event loop, forked
    and spawned; the students are the same everywhere. `caller.py` does all this in one process."""
    values = [runs.settings() for _ in range(6)]
    done = warm_python.run(
        [sys.executable, str(Path(__file__).with_name("caller.py")), json.dumps(values)],
        env=cli_env(HF_HUB_OFFLINE="1"), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.pop("differences") == {}
    assert sorted(report) == ["again", "event loop", "first", "forked", "spawned", "thread"]
    assert {student_digest(Path(folder)) for folder in report.values()} == {runs.digest}


def test_a_forked_child_does_not_wait_for_threads_of_its_parent(
    runs: Runs, cli_env: Callable[..., dict[str, str]]
) -> None:
    program = (
        "import json, os, signal, sys, torch\n"
        "from distillkit import distill_models\n"
        "torch.set_num_threads(3)\n"
        "torch.randn(400, 400) @ torch.randn(400, 400)\n"
        "torch.randn(4000, 1000).softmax(-1)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    signal.alarm(120)\n"
        "    distill_models(**json.loads(sys.argv[1]))\n"
        "    os._exit(0 if torch.get_num_threads() == 3 else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    values = runs.settings(quiet=False)
    done = warm_python.run(
        [sys.executable, "-c", program, json.dumps(values)],
        env=cli_env(HF_HUB_OFFLINE="1"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "one thread instead of 3: this process was forked" in done.stderr
