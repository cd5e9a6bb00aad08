"""check-env: is everything here that this configuration needs? Installs what is missing; self-tests on request."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from packaging.requirements import Requirement

from distillkit.console import Console, format_bytes
from distillkit.device.memory import free_memory_bytes, total_memory_bytes
from distillkit.device.precision import best_device, choose_compute, cpu_has_bf16, has_bf16
from distillkit.device.processors import choose_threads, usable_processors, with_threads
from distillkit.errors import PreconditionError
from distillkit.harness.tasks import provide_harness
from distillkit.installing import is_satisfied, provide
from distillkit.models.quantised import LIBRARIES
from distillkit.models.references import ModelReference, parse_student_reference, parse_teacher_reference
from distillkit.models.requirements import required_libraries
from distillkit.run.directory import RunDirectory
from distillkit.run.manifest import library_versions
from distillkit.settings.conditions import is_behind_server
from distillkit.settings.extensions import conflicts, listed_extensions, load_chosen
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import free_disk_bytes, nearest_existing
from distillkit.teachers.generated_file import WRITTEN
from distillkit.training.readiness import provide_for_training
from distillkit.words import reworded

_HUB_TIMEOUT_SECONDS = 5.0


def extra_inputs(config: Parameters, run: RunDirectory) -> dict[str, str]:
    """The environment itself: another machine or another library version is checked again."""
    libraries = {f"library {name}": version for name, version in library_versions().items()}
    return {
        **libraries,
        "interpreter": sys.executable,
        "device": str(best_device(config.no_cuda)),
        "models": f"{config.teacher_model_path or config.teacher_model} / {config.student_model_path or config.student_model}",
        "self-tests": str(config.run_tests),
        "optimizer and trackers": f"{config.optimizer} / {config.report_to}",
        "adapter": config.adapter,
        "tasks of lm-evaluation-harness": str(config.lm_eval),
        "extensions": f"{config.divergence} / {config.alignment} / {config.teacher_cache}: {', '.join(listed_extensions())}",
    }


def run(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
    """Check, and note the findings in the manifest."""
    findings = check(config, console, texts_written=(run.teacher / WRITTEN).is_file())
    run.manifest.versions = {**library_versions(), **findings["libraries"]}
    run.manifest.device = {**run.manifest.device, **findings["device"]}  # The training's threads stay.
    device = findings["device"]
    free = format_bytes(device["memory_available"])
    summary = console.say("summary.check", device=device["name"], precision=device["precision"], free=free)
    if findings["self_tests"]:
        summary += console.say("summary.tested", count=findings["self_tests"])
    return StageResult([], {name: findings[name] for name in ("hub", "self_tests")}, summary)


def check(config: Parameters, console: Console, *, texts_written: bool = False) -> dict[str, Any]:
    """Everything that check-env finds, shown as a table and returned.

    Args:
        texts_written: the teacher has begun to write, so that a server that is out of reach may not be needed any more; the
            training says so if it is.

    Raises:
        PreconditionError: a library is missing and may not or cannot be installed, or the hub is needed and there is
            no way to it; the teacher's server is out of reach; code of another package that is chosen cannot be loaded.
        UsageError: a task of lm-evaluation-harness is unknown.
        DistillkitError: a self-test failed.
    """
    references = [parse_teacher_reference(config), parse_student_reference(config)]
    hub = _hub_state()
    served = _server_state(config, console, texts_written=texts_written)
    libraries = _provide_libraries(config, references, console)
    provide_for_training(config, console)
    libraries |= load_chosen(config)
    for words in conflicts():
        console.warn(words)
    if config.lm_eval is not None:
        provide_harness(config, console)
        libraries["lm_eval"] = metadata.version("lm_eval")
    with with_threads(choose_threads(config.threads, computes_here=False).count):
        device = _device_facts(config)
    output = nearest_existing(Path(config.output_dir).expanduser().absolute())
    free = free_disk_bytes(output)
    passed = 0
    if config.run_tests:
        from distillkit.selftests.runner import run_self_tests

        passed = run_self_tests(console, choose_compute(config), compile_loss=config.compile_loss)
    say = console.say
    rows = [
        (say("env.system"), f"{platform.system()} {platform.release()} {platform.machine()}"),
        *library_versions().items(),
        *((name, version) for name, version in libraries.items()),
        (say("env.device"), device["name"]),
        (say("env.bf16"), say("env.bf16.on" if device["bf16"] else "env.bf16.off")),
        (
            say("env.used"),
            say("env.threads", device=device["type"], precision=device["precision"], threads=device["threads"]),
        ),
        (
            say("env.memory"),
            say(
                "env.free_of", free=format_bytes(device["memory_available"]), total=format_bytes(device["memory_total"])
            ),
        ),
        (say("env.disk"), say("env.free_at", free=format_bytes(free), path=output)),
        (say("env.hub"), reworded(console.lang, hub, "why")),
        (say("env.quantised"), _quantised_words(console)),
        *([(say("env.teacher"), reworded(console.lang, served, "why"))] if served is not None else []),
    ]
    rows += [(say("env.extension"), words) for words in listed_extensions()]
    if passed:
        rows.append((say("env.self_tests"), say("env.passed", count=passed)))
    console.table(say("env.title"), [say("env.what"), say("env.found")], rows)
    return {
        "libraries": libraries,
        "versions": library_versions(),
        "device": device,
        "disk_free": free,
        "hub": hub,
        "self_tests": passed,
    }


def _server_state(config: Parameters, console: Console, *, texts_written: bool) -> str | None:
    """Whether the server of a teacher is there; None for a teacher without one."""
    if not is_behind_server(vars(config)):
        return None
    from distillkit.servers.opening import check_server, open_client

    client = open_client(config)
    try:
        return check_server(client, console)
    except PreconditionError as error:
        if not texts_written:
            raise
        return f"not reachable: {error.message}"
    finally:
        client.close()


def _provide_libraries(config: Parameters, references: list[ModelReference], console: Console) -> dict[str, str]:
    needed = sorted({library for reference in references for library in required_libraries(reference)})
    provide(needed, "this configuration", console, allowed=config.install_deps)
    names = [Requirement(library).name for library in needed]
    return {name: metadata.version(name) for name in names}


def _device_facts(config: Parameters) -> dict[str, Any]:
    device = best_device(config.no_cuda)
    compute = choose_compute(config)
    facts: dict[str, Any] = {
        "type": device.type,
        "name": platform.processor() or platform.machine(),
        "precision": {torch.bfloat16: "bf16", torch.float16: "fp16", None: "fp32"}[compute.autocast],
        "bf16": has_bf16(device),
        "cpu_bf16": cpu_has_bf16(),
        "threads": torch.get_num_threads(),
        # Of two hardware threads of a core only one computes; a container may have fewer of either.
        "cores": min(psutil.cpu_count(logical=False) or os.cpu_count() or 1, usable_processors()),
        "memory_total": total_memory_bytes(device),
        "memory_available": free_memory_bytes(device),
    }
    if device.type == "cuda":
        facts["name"] = torch.cuda.get_device_name(device)
        facts["gpus"] = torch.cuda.device_count()
    elif device.type == "cpu":
        facts["name"] = _processor_name()
    return facts


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _quantised_words(console: Console) -> str:
    """Which kinds of quantised checkpoints can be read, as far as that takes a library."""
    there = [name for name, needed in LIBRARIES.items() if all(map(is_satisfied, needed))]
    missing = [name for name in LIBRARIES if name not in there]
    lacking = console.say("env.no_library", names=", ".join(missing)) if missing else ""
    return "; ".join(filter(None, [", ".join(there), lacking]))


def _hub_state() -> str:
    """`reachable in 0.12 s`, `offline (HF_HUB_OFFLINE is set)` or `not reachable`; never with credentials in it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.is_offline_mode():
        return "offline (HF_HUB_OFFLINE is set): only the cache is used"
    began = time.monotonic()
    try:
        get_session().get(f"{constants.ENDPOINT}/api/models?limit=1", timeout=_HUB_TIMEOUT_SECONDS)
    except Exception as error:
        # Any transport may be behind the session: whatever it raises, the hub was not reached, and that is the finding.
        return f"not reachable ({type(error).__name__}): paths, the cache and --preset quickstart still work"
    return f"reachable in {time.monotonic() - began:.2f} s"
