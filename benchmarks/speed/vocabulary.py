"""The vocabulary-sized loss alone, over the size of the vocabulary: time and memory of ours against the plain way.

    python benchmarks/speed/vocabulary.py --results vocabulary.jsonl

CE and forward KL of `--rows` rows of a student (576 wide, fp32 head, bf16 autocast) against a teacher of the same width
and vocabulary (bf16), forward and backward. Plain: all logits of both at once, `torch.nn.functional`, autograd. Every
measurement is a process of its own; memory is the highest above what the inputs take.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WIDTH, TEMPERATURE, ALPHA = 576, 2.0, 0.5


def memory(name: str) -> int:
    """Bytes of this process: VmRSS is now, VmHWM the highest since it was reset."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {name} here: this needs Linux")


def measure(way: str, columns: int, rows: int, repeats: int) -> dict[str, Any]:
    import torch
    from torch.nn import functional

    from distillkit.device.buffers import Buffers, linear_rows
    from distillkit.device.malloc import freed_memory_kept
    from distillkit.losses.chunked import StudentOutput, chunked_loss
    from distillkit.losses.linear_head import LinearHead
    from distillkit.losses.tempered import SoftLoss

    torch.manual_seed(0)
    head = torch.nn.Linear(WIDTH, columns, bias=False)
    teacher_head = torch.nn.Linear(WIDTH, columns, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    teacher = torch.randn(rows, WIDTH, dtype=torch.bfloat16)
    targets = torch.randint(columns, (rows,))
    divisor = torch.tensor(float(rows))

    buffers, linear = Buffers(), LinearHead(head, directly=True)

    class Targets:
        rows = torch.arange(len(targets))

        def log_target(self, begin: int, end: int, columns: int) -> torch.Tensor:
            with torch.no_grad():
                return linear_rows(buffers, "teacher", teacher[begin:end], teacher_head.weight, None)

    def ours(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            output = StudentOutput(hidden[None], head, (head.weight,), columns, linear)
            return chunked_loss(
                output, torch.arange(rows), targets, torch.full((rows,), 1 - ALPHA), Targets(),
                SoftLoss(temperature=TEMPERATURE), alpha=ALPHA, divisor=divisor, compile_kernels=way == "compiled",
            ).loss  # fmt: skip

    def plain(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits, wanted = head(hidden).float(), teacher_head(teacher).float()
        soft = functional.kl_div(
            functional.log_softmax(logits / TEMPERATURE, -1), functional.log_softmax(wanted / TEMPERATURE, -1),
            log_target=True, reduction="sum",
        )  # fmt: skip
        hard = functional.cross_entropy(logits, targets, reduction="sum")
        return (ALPHA * TEMPERATURE**2 * soft + (1 - ALPHA) * hard) / divisor

    keeping = contextlib.ExitStack()
    if way != "plain":
        keeping.enter_context(freed_memory_kept())  # As the stages do it.
    seconds, value = [], 0.0
    baseline = 0  # Set when all is warm.
    for number in range(repeats + 2):
        hidden = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
        head.zero_grad()
        if number == 2:  # Compiled, and the allocator warm.
            baseline = memory("VmRSS")
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        began = time.perf_counter()
        loss = plain(hidden) if way == "plain" else ours(hidden)
        loss.backward()
        seconds.append(time.perf_counter() - began)
        value = float(loss.detach())
    return {
        "way": way, "columns": columns, "rows": rows, "seconds": round(statistics.median(seconds[2:]), 4), "loss": value,
        "bytes": memory("VmHWM") - baseline,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--columns", nargs="+", type=int, default=[8192, 32000, 49152, 131072, 262144])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", help="measure this way in this process")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.columns[0], arguments.rows, arguments.repeats)))
        return
    for columns in arguments.columns:
        for way in ("plain", "eager", "compiled"):
            command = [sys.executable, __file__, "--one", way, "--columns", str(columns)]
            command += ["--rows", str(arguments.rows), "--repeats", str(arguments.repeats)]
            line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            print(line, flush=True)
            if arguments.results:
                with arguments.results.open("a", encoding="utf-8") as stream:
                    stream.write(line + "\n")


if __name__ == "__main__":
    main()
