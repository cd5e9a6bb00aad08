"""Python programs that a shell starts, forked from the server of warm_python.py.

    with forked_program(folder / "distillkit", ["-m", "distillkit"]):
        subprocess.run(["bash", "-c", "distillkit --version"], env={"PATH": …})

What the shell starts is a small client, which hands over its words, streams, folder and environment, and ends as the
program does. It hands on no signals.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import warm_python

_CLIENT = """
import json, os, socket, struct, sys
wire = socket.socket(socket.AF_UNIX)
wire.connect(sys.argv[1])
given = json.dumps({"words": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
socket.send_fds(wire, [struct.pack("I", len(given))], [0, 1, 2])
wire.sendall(given)
code = struct.unpack("i", wire.recv(4))[0]
sys.exit(code if code >= 0 else 128 - code)
"""


@contextlib.contextmanager
def forked_program(path: Path, words: Sequence[str]) -> Iterator[None]:
    """At `path`, as long as this lasts, a program that is `python WORDS …`."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        # The address of a socket has a hundred characters at most, which the folder of a test may exceed.
        client, address = Path(place, "client.py"), Path(place, "socket")
        client.write_text(_CLIENT, encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{client}" "{address}" "$@"\n', encoding="utf-8")
        path.chmod(0o755)
        listener.bind(str(address))
        listener.listen()
        server = threading.Thread(target=_serve, args=(listener, words))
        server.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()


def _serve(listener: socket.socket, words: Sequence[str]) -> None:
    while True:
        try:
            wire, _ = listener.accept()
        except OSError:
            return
        with wire:
            header, streams, _, _ = socket.recv_fds(wire, 4, 3)
            content = b""
            while len(content) < struct.unpack("I", header)[0]:
                content += wire.recv(1 << 16)
            given = json.loads(content)
            with warm_python.Popen(
                [sys.executable, *words, *given["words"]], env=given["environment"], cwd=given["folder"],
                stdin=streams[0], stdout=streams[1], stderr=streams[2],
            ) as process:  # fmt: skip
                for stream in streams:
                    os.close(stream)
                code = process.wait()
            wire.sendall(struct.pack("i", code))
