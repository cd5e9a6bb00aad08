"""What of the environment is set aside, what stays, what is refused; and that all of it is put back."""

from __future__ import annotations

import os

import pytest

from distillkit.errors import UsageError
from distillkit.process_environment import check_one_process, neutral_environment, set_aside

_LAUNCHERS = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "name",
    ["ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP", "FSDP_OFFLOAD_PARAMS", "ACCELERATE_DYNAMO_BACKEND",
     "PARALLELISM_CONFIG_TP_SIZE", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
     "ONEDNN_DEFAULT_FPMATH_MODE", "TORCHINDUCTOR_FREEZING", "TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE",
     "XLA_USE_BF16", "TRANSFORMERS_SDPA_FORCE_GQA", "PYTORCH_JIT"],
)  # fmt: skip
def test_what_changes_results_is_set_aside_and_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "strange")
    with neutral_environment() as found:
        assert name not in os.environ
        assert any(f"{name}=strange" in line for line in found.lines())
        assert set_aside() is found
    assert os.environ[name] == "strange"


@pytest.mark.parametrize(
    "name",
    ["HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "CUDA_VISIBLE_DEVICES",
     "TORCH_CUDA_ARCH_LIST", "PYTORCH_CUDA_ALLOC_CONF", "NVIDIA_VISIBLE_DEVICES", "TORCH_LOGS", "OMP_NUM_THREADS",
     "SLURM_NTASKS", "SLURM_PROCID", "TORCHINDUCTOR_COMPILE_THREADS", "ACCELERATE_LOG_LEVEL"],
)  # fmt: skip
def test_what_changes_no_result_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "4")
    with neutral_environment() as found:
        assert os.environ[name] == "4"
        assert not any(name in line for line in found.lines())
        check_one_process()


def test_what_was_chosen_for_the_machine_stays_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with neutral_environment() as found:
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert list(found.lines()) == [
            "in use, may change the last digits: CUBLAS_WORKSPACE_CONFIG=:4096:8 (environment)"
        ]


def test_what_a_loaded_library_has_read_is_not_called_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert torch.__version__
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    (line,) = set_aside().lines()
    assert "NVIDIA_TF32_OVERRIDE=1 (environment) was read when torch was loaded" in line


def test_what_the_block_changes_is_undone_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    before = dict(os.environ)

    def fail() -> None:
        with neutral_environment(), neutral_environment():
            os.environ["TOKENIZERS_PARALLELISM"] = "nonsense"
            os.environ["ACCELERATE_USE_CPU"] = "0"
            os.environ.pop("PATH")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "variables",
    [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}, {"LOCAL_RANK": "3"},
     {"OMPI_COMM_WORLD_SIZE": "4"}, {"PMI_SIZE": "2"}, {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "8"}],
)  # fmt: skip
def test_one_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="distillkit runs in one process here, and ") as outside:
        check_one_process()
    with neutral_environment(), pytest.raises(UsageError) as inside:
        check_one_process()
    assert inside.value.message == outside.value.message
    assert all(name in (inside.value.hint or "") for name in variables)


@pytest.mark.parametrize(
    "variables",
    [{"LOCAL_RANK": "0"}, {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "x"}, {"RANK": "gold"},
     {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, {"LOCAL_RANK": "-1"}, {"WORLD_SIZE": ""}],
)  # fmt: skip
def test_a_launcher_of_one_process_is_none(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with neutral_environment() as found:
        check_one_process()
        assert not set(variables) & set(os.environ)
        (line,) = found.lines()
        assert line.startswith("not used, this is one process: ")


@pytest.mark.parametrize("theirs", [None, "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"])
def test_compiled_products_are_bounded_unless_the_environment_does(
    monkeypatch: pytest.MonkeyPatch, theirs: str | None
) -> None:
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.delenv(name, raising=False)
    if theirs is not None:
        monkeypatch.setenv(theirs, "7")
    before = dict(os.environ)
    with neutral_environment():
        found = {name: value for name, value in os.environ.items() if name.endswith("PRIMITIVE_CACHE_CAPACITY")}
        assert found == ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"} if theirs is None else {theirs: "7"})
    assert dict(os.environ) == before
