"""Peak memory of each of several processes of one command, as `docs/scale.md` has it for `--parallel ddp` and `fsdp`.

    python benchmarks/scale/memory.py --processes 2 -- distill --parallel fsdp …

A launcher's place is taken here: it would add its own memory, and `wait4` tells that of each process.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("arguments", nargs="+", help="of distillkit")
    asked = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": str(asked.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "distillkit", *asked.arguments],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(asked.processes)},
        )
        for rank in range(asked.processes)
    ]
    code = 0
    for rank, process in enumerate(started):
        _, status, usage = os.wait4(process.pid, 0)
        ended = os.waitstatus_to_exitcode(status)
        code = code or ended
        print(f"process {rank}: exit code {ended}, peak {usage.ru_maxrss / 1e6:.2f} GB")
    return code


if __name__ == "__main__":
    sys.exit(main())
