"""Variables of the environment through which libraries would compute something else than the parameters say.

The number format, the accumulation, the device and the number of processes are parameters here; accelerate, transformers
and torch also take them from variables that a launcher, `accelerate config` or another job's profile has left behind. These
are set aside while the program works, and put back afterwards; each is named in one line. (accelerate's own configuration
file is read by `accelerate launch` alone, which passes it on in such variables.)
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from distillkit.errors import UsageError

# Read by accelerate and transformers whenever a training begins.
_OF_TRAINING = re.compile(r"(ACCELERATE|FSDP|MEGATRON_LM|PARALLELISM_CONFIG|FP8|AO_FP8|TE_FP8|MSAMP)_\w+")
# Read once, when the library that is named here is loaded.
_OF_LOADING: dict[str, re.Pattern[str]] = {
    "torch": re.compile(
        r"NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|(ONEDNN|DNNL)_DEFAULT_FPMATH_MODE"
        r"|TORCH_BLAS_PREFER_\w+|TORCH_LINALG_PREFER_\w+|TORCH_CUDNN_V8_API_DISABLED|TORCH_CUDNN_USE_HEURISTIC_MODE_B"
        r"|TORCH_MKLDNN_MATMUL_\w+|TORCH_LINEAR_FLATTEN_3D|TORCH_ROCM_FA_PREFER_CK|PYTORCH_MPS_(FAST_MATH|PREFER_METAL)"
        r"|PYTORCH_JIT|PYTORCH_TENSOREXPR\w*|PYTORCH_TUNABLEOP_\w+"
    ),
    "torch._dynamo": re.compile(r"TORCHDYNAMO_\w+|TORCH_DYNAMO_\w+|TORCH_COMPILE_\w+"),
    "torch._inductor": re.compile(r"TORCHINDUCTOR_\w+"),
    "transformers": re.compile(
        r"XLA_USE_BF16|XLA_DOWNCAST_BF16|PJRT_DEVICE|USE_TORCH_XLA|USE_HUB_KERNELS|NPU_FA2_SPARSE_MODE"
        r"|TRANSFORMERS_(SDPA_FORCE_GQA|DISABLE_DEEPGEMM_LINEAR)|FLASH_ATTENTION_DETERMINISTIC"
    ),
}
# Where something lies, how much is said, how many may work: no number depends on these.
_HARMLESS = re.compile(
    r"\w+_(CACHE_DIR|COMPILE_THREADS|LOG_LEVEL|LOGS?|LOG_FILE|DEBUG|DEBUG_\w+|VERBOSE|PROFILE|CPROFILE|FILENAME)"
    r"|ACCELERATE_(DEBUG_MODE|ENABLE_RICH|DISABLE_RICH|LOG_LEVEL)"
)
# Chosen on purpose for the machine; what they change are last digits, so they stay and are said.
_ROUNDING = re.compile(
    r"CUBLAS_WORKSPACE_CONFIG|ATEN_CPU_CAPABILITY|MKL_CBWR|MKL_ENABLE_INSTRUCTIONS|MKL_DEBUG_CPU_TYPE"
    r"|(ONEDNN|DNNL)_MAX_CPU_ISA|OPENBLAS_CORETYPE"
)

# oneDNN, with which torch multiplies bf16 on a processor, keeps the last 1024 products that it has compiled, one for each kind of
# product and number of rows: up to 0.6 GB, most of them for batches of a size that does not come again. With 128 a training is as
# fast and the student the same, bit for bit (benchmarks/adapters). Read at the first product.
_COMPILED_PRODUCTS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}
_OF_COMPILED_PRODUCTS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY")

# How many processes there are, and which of them this is: torchrun and accelerate, MPI in its kinds.
_SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
_RANKS = ("RANK", *_LOCAL_RANKS, "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SMDATAPARALLEL_LOCAL_RANK")
_OF_LAUNCHERS = re.compile(
    "|".join((*_SIZES, *_RANKS))
    + r"|MASTER_(ADDR|PORT)|(GROUP|ROLE)_(RANK|WORLD_SIZE|NAME)|NODE_RANK|TORCHELASTIC_\w+|OMPI_COMM_WORLD_LOCAL_SIZE"
    r"|MV2_COMM_WORLD_LOCAL_SIZE|MPI_LOCALN?RANK(S|ID)|FORK_LAUNCHED"
)


@dataclass(frozen=True)
class SetAside:
    """What was taken out of the environment, and what stays and matters.

    Attributes:
        computing: variables that would change what is computed, and their values.
        launching: variables of a launcher.
        too_late: those of `computing` that a library had read before, by the library's name.
        rounding: variables that stay.
    """

    computing: Mapping[str, str] = field(default_factory=dict)
    launching: Mapping[str, str] = field(default_factory=dict)
    too_late: Mapping[str, str] = field(default_factory=dict)
    rounding: Mapping[str, str] = field(default_factory=dict)

    def lines(self, *, one_process: bool = True) -> Iterator[str]:
        """What there is to say of it.

        Args:
            one_process: whether this process has nothing to do with any others.
        """
        in_time = {name: value for name, value in self.computing.items() if name not in self.too_late}
        if in_time:
            yield f"not used, the parameters decide: {_listed(in_time)} (environment)"
        for name, library in self.too_late.items():
            yield (
                f"{name}={self.computing[name]} (environment) was read when {library} was loaded and may change what is "
                f"computed; unset it before {library} is imported"
            )
        if self.rounding:
            yield f"in use, may change the last digits: {_listed(self.rounding)} (environment)"
        said = {name: value for name, value in self.launching.items() if name in (*_SIZES, *_RANKS)}
        if said and one_process:
            yield f"not used, this is one process: {_listed(said)} (environment)"


_current: SetAside | None = None


def _listed(variables: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(variables.items()))


def _found(environment: Mapping[str, str]) -> SetAside:
    computing: dict[str, str] = {}
    launching: dict[str, str] = {}
    too_late: dict[str, str] = {}
    rounding: dict[str, str] = {}
    for name, value in environment.items():
        if _OF_LAUNCHERS.fullmatch(name):
            launching[name] = value
        elif _ROUNDING.fullmatch(name):
            rounding[name] = value
        elif _HARMLESS.fullmatch(name):
            continue
        elif _OF_TRAINING.fullmatch(name):
            computing[name] = value
        else:
            library = next((key for key, pattern in _OF_LOADING.items() if pattern.fullmatch(name)), None)
            if library is not None:
                computing[name] = value
                if library in sys.modules:
                    too_late[name] = library
    return SetAside(computing, launching, too_late, rounding)


@contextlib.contextmanager
def neutral_environment() -> Iterator[SetAside]:
    """Inside, the environment lacks what would make libraries compute something else than the parameters say, and bounds
    what oneDNN keeps, unless it says so itself.

    What the block itself adds or changes is undone as well. Blocks may be nested: the outer one counts.
    """
    global _current
    if _current is not None:
        yield _current
        return
    before = dict(os.environ)
    _current = _found(before)
    for name in (*_current.computing, *_current.launching):
        del os.environ[name]
    if not any(name in before for name in _OF_COMPILED_PRODUCTS):
        os.environ.update(_COMPILED_PRODUCTS)
    try:
        yield _current
    finally:
        _current = None
        restore_environment(before)


def restore_environment(before: Mapping[str, str]) -> None:
    """Make the environment what it was, touching nothing that is so already."""
    for name in set(os.environ) - set(before):
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def set_aside() -> SetAside:
    """What the surrounding `neutral_environment` has set aside; outside of one, what it would."""
    return _current if _current is not None else _found(os.environ)


def check_one_process() -> None:
    """Refuse to be one of several processes, before anything waits for the others.

    Raises:
        UsageError: a launcher says that there are several, or torch's process group has several.
    """
    found = set_aside().launching
    several = next((name for name in _SIZES if _number(found.get(name)) > 1), None)
    later = next((name for name in _LOCAL_RANKS if _number(found.get(name)) > 0), None)
    if several is not None or later is not None:
        name = several or later or ""
        started = f"{found[name]} of them" if several is not None else "others before it"
        unset = " ".join(sorted(item for item in found if item in (*_SIZES, *_RANKS)))
        raise UsageError(
            f"distillkit runs in one process here, and {name}={found[name]} (environment) says that a launcher started {started}",
            hint="several processes run the command line, under torchrun, accelerate launch or distillkit launch, which set RANK, "
            f"WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; where there is no launcher: unset {unset}",
        )
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        size = distributed.get_world_size()
        if size > 1:
            raise UsageError(
                f"distillkit runs in one process, and torch's process group in this process has {size}",
                hint="call distill_models() in a process of its own, without torch.distributed.init_process_group",
            )


def _number(value: str | None) -> int:
    """A variable's number; 0 for what is none, which no launcher sets."""
    return int(value) if value is not None and value.strip().isdecimal() else 0
