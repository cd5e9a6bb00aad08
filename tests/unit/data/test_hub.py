"""Data sets on the Hub, against a server on this machine that speaks as much of its protocol as reading needs.

Every load is a process of its own: where the Hub is, and whether it may be asked, is read when its library is imported.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow
import pytest
import warm_python
from pyarrow import parquet

import distillkit

PACKAGE = Path(distillkit.__file__).resolve().parents[1]
LOAD = """
import json, sys
from distillkit.console import Console
from distillkit.data.sources import load_documents
from distillkit.errors import DistillkitError
from distillkit.settings.parameters import Parameters
try:
    found = load_documents(Parameters(**json.loads(sys.argv[1])), Console())
    splits = {split: [(d.text, d.origin) for d in documents] for split, documents in found.splits.items()}
    print(json.dumps({"splits": splits, "notes": found.notes, "fingerprint": found.fingerprint, "reading": found.reading}))
except DistillkitError as error:
    print(json.dumps({"error": error.message, "hint": error.hint, "code": error.exit_code}))
"""


class HubServer:
    """Repositories of files, what was asked for, and how many of the next answers fail."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.failures = 0
        self.requests: list[tuple[str, int]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, content, headers = hub.answer(self.command, self.path, self.headers.get("Range"), body)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)
                    hub.requests.append((self.path, len(content)))

            do_GET = do_HEAD = do_POST = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def commit(self, name: str) -> str:
        content = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in self.repositories[name].items())
        return hashlib.sha1(repr(content).encode()).hexdigest()

    def answer(self, method: str, url: str, byte_range: str | None, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if self.failures > 0:
            self.failures -= 1
            return 503, b"", {}
        parts = urlsplit(url)
        match = re.fullmatch(
            r"(?P<api>/api)?/datasets/(?P<name>[^/]+/[^/]+)"
            r"(?:/(?P<verb>revision|tree|paths-info|resolve)/(?P<revision>[^/]+)/?(?P<path>.*))?",
            unquote(parts.path),
        )
        if not match or match["name"] not in self.repositories:
            return 404, b"{}", {"X-Error-Code": "RepoNotFound"}
        files, commit = self.repositories[match["name"]], self.commit(match["name"])
        if match["revision"] not in (None, "main", commit):
            return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
        if match["verb"] == "resolve":
            return self.file(match["name"], files.get(match["path"]), method, byte_range, commit)
        entries = {path: {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                   for path, data in files.items()}  # fmt: skip
        for path in files:
            for folder in map(str, list(Path(path).parents)[:-1]):
                entries[folder] = {"type": "directory", "path": folder, "size": 0, "oid": "0" * 40}
        answer: Any
        if match["verb"] == "tree":
            recursive = parse_qs(parts.query).get("recursive") in (["true"], ["True"])
            prefix = f"{match['path']}/" if match["path"] else ""
            inside = {path: entry for path, entry in sorted(entries.items()) if path.startswith(prefix)}
            answer = [entry for path, entry in inside.items() if recursive or "/" not in path[len(prefix) :]]
        elif match["verb"] == "paths-info":
            asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode()).get("paths", [])
            answer = [entries[path] for path in asked if path in entries]
        else:
            answer = {"id": match["name"], "sha": commit, "siblings": [{"rfilename": path} for path in files]}
            answer |= {"private": False, "gated": False, "tags": [], "downloads": 0, "likes": 0}
        return 200, json.dumps(answer).encode(), {"Content-Type": "application/json"}

    def file(
        self, name: str, data: bytes | None, method: str, byte_range: str | None, commit: str
    ) -> tuple[int, bytes, dict[str, str]]:
        if name in self.gated:
            return 403, b"{}", {"X-Error-Code": "GatedRepo"}
        if data is None:
            return 404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        headers["Content-Length"] = str(len(data))
        if method == "HEAD":
            return 200, b"", headers
        if byte_range:
            first, last = (int(end) for end in byte_range.removeprefix("bytes=").split("-"))
            last = min(last, len(data) - 1)
            headers |= {"Content-Range": f"bytes {first}-{last}/{len(data)}", "Content-Length": str(last - first + 1)}
            return 206, data[first : last + 1], headers
        return 200, data, headers

    def load(self, home: Path, *, url: str | None = None, offline: bool = False, **settings: Any) -> dict[str, Any]:
        """What `load_documents` gives or raises with these settings."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": url or self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
        environment |= {"PYTHONPATH": str(PACKAGE), "HF_HUB_OFFLINE": "1" if offline else "0", "no_proxy": "127.0.0.1"}
        self.requests.clear()
        command = [sys.executable, "-c", LOAD, json.dumps(settings)]
        done = warm_python.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1
        return json.loads(done.stdout) | {"stderr": done.stderr}

    def served(self) -> int:
        return sum(size for _, size in self.requests)


def parquet_bytes(**columns: list[Any]) -> bytes:
    target = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), target, row_group_size=300)
    return target.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    server = HubServer()
    configurations = "---\nconfigs:\n"
    files: dict[str, bytes] = {}
    for config, splits in {
        "wikitext-103-raw-v1": {"train": 1},
        "wikitext-2-raw-v1": {"test": 5, "train": 40, "validation": 4},
    }.items():
        configurations += f"- config_name: {config}\n  data_files:\n"
        for split, articles in splits.items():
            configurations += f"  - split: {split}\n    path: {config}/{split}-*\n"
            rows = [
                line
                for n in range(articles)
                for line in (
                    "",
                    f" = {split} {n} = \n",
                    "",
                    f" Words of {split} {n} . \n",
                    " = = S = = \n",
                    " More . \n",
                )
            ]
            files[f"{config}/{split}-00000-of-00001.parquet"] = parquet_bytes(text=rows)
    server.repositories["Salesforce/wikitext"] = {"README.md": (configurations + "---\n").encode(), **files}
    noise = random.Random(0)
    server.repositories["wanghaofan/pokemon-wiki-captions"] = {
        "data/train-00000-of-00001.parquet": parquet_bytes(
            image=[{"bytes": noise.randbytes(10_000), "path": None} for _ in range(600)],
            text_en=[f"Creature {number} lives in tall grass." for number in range(599)] + [None],
            text_zh=[f"宝 {number}" for number in range(600)],
        )
    }
    server.repositories["o/lines"] = {
        "train.jsonl": b"".join(b'{"text": "row %d"}\n' % number for number in range(30)),
        "test.jsonl": b"".join(b'{"text": "held %d"}\n' % number for number in range(9)),
    }
    sentences = [f"A sentence of some words about creature {number}." for number in range(600)]
    pictures = [{"bytes": noise.randbytes(10_000), "path": None} for _ in range(600)]
    identifiers = [f"row-{number:05}" for number in range(600)]
    server.repositories["o/captions"] = {
        "train.parquet": parquet_bytes(id=identifiers, image=pictures, caption=[None, *sentences[1:]])
    }
    server.repositories["o/chats"] = {
        "train.parquet": parquet_bytes(
            id=identifiers,
            picture=pictures,
            messages=[
                [{"role": "user", "content": f"Who is number {n}?"}, {"role": "assistant", "content": text}]
                for n, text in enumerate(sentences)
            ],
        )
    }
    server.repositories["o/pairs"] = {
        f"data/{split}-{part}.jsonl": b"".join(
            json.dumps(
                {"instruction": f"Describe number {n}.", "input": "", "output": None if n == 7 else text}
            ).encode()
            + b"\n"
            for n, text in list(enumerate(sentences))[start : start + 100]
        )
        for split, part, start in (("train", 0, 0), ("train", 1, 100), ("test", 0, 200))
    }
    server.repositories["o/both"] = {
        "train.parquet": parquet_bytes(
            text=sentences,
            messages=[[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]] * 600,
        )
    }
    server.repositories["o/gaps"] = {
        "train.jsonl": b"".join(
            json.dumps({"id": f"x-{number}", "body": text if number % 20 else None}).encode() + b"\n"
            for number, text in enumerate(sentences)
        )
    }
    server.repositories["o/gated"] = {"train.jsonl": b'{"text": "a"}\n'}
    server.gated.add("o/gated")
    server.repositories["o/program"] = {"README.md": b"", "program.py": b"open('ran', 'w')\n"}
    server.repositories["o/pictures"] = {"README.md": b"", "one.xyz": b"?"}
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_wikitext_by_splits_and_again_without_network(hub: HubServer, tmp_path: Path) -> None:
    first = hub.load(tmp_path, dataset="wikitext")
    assert {split: len(documents) for split, documents in first["splits"].items()} == {
        "train": 40, "validation": 4, "test": 5,
    }  # fmt: skip
    assert first["splits"]["train"][1] == ["Words of train 1 .\nMore .", "Salesforce/wikitext[train]:10"]
    assert first["notes"] == ["blank rows left out: 98", "headings left out: 98"]
    assert first["fingerprint"]["commit"] == hub.commit("Salesforce/wikitext")
    assert not any("103" in path for path, _ in hub.requests if "parquet" in path)
    assert "unauthenticated" not in first["stderr"]
    again = hub.load(tmp_path, dataset="wikitext")
    assert again["splits"] == first["splits"]
    assert len(hub.requests) == 1
    offline = hub.load(tmp_path, dataset="wikitext", offline=True)
    assert offline["splits"] == first["splits"]
    assert hub.requests == []
    assert offline["notes"][0].startswith(
        "offline mode is on (HF_HUB_OFFLINE): the copy of Salesforce/wikitext on this"
    )
    for parquet_file in (tmp_path / "distillkit").rglob("train.parquet"):
        parquet_file.write_bytes(b"torn")
    assert hub.load(tmp_path, dataset="wikitext")["splits"] == first["splits"]
    assert len(hub.requests) > 1


def test_of_the_pokemon_set_no_picture_is_downloaded(hub: HubServer, tmp_path: Path) -> None:
    found = hub.load(tmp_path, dataset="pokemon")
    assert len(found["splits"]["train"]) == 599
    assert found["notes"] == [
        "wanghaofan/pokemon-wiki-captions: 1 bad row left out "
        "(wanghaofan/pokemon-wiki-captions[train], row 600, column 'text_en': null)"
    ]
    file = hub.repositories["wanghaofan/pokemon-wiki-captions"]["data/train-00000-of-00001.parquet"]
    assert len(file) > 6_000_000
    assert 0 < hub.served() < 200_000


def test_the_column_is_found_without_downloading_pictures_and_remembered(hub: HubServer, tmp_path: Path) -> None:
    first = hub.load(tmp_path, dataset="o/captions")
    assert 0 < hub.served() < 200_000
    assert first["splits"]["train"][0] == ["A sentence of some words about creature 1.", "o/captions[train]:2"]
    assert first["reading"]["columns"] == {"o/captions": {"column": "caption", "why": "the only one that is prose"}}
    assert first["notes"] == ["o/captions: 1 bad row left out (o/captions[train], row 1, column 'caption': null)"]
    again = hub.load(tmp_path, dataset="o/captions")
    assert len(hub.requests) == 1
    assert [again[key] for key in ("splits", "reading", "notes")] == [
        first[key] for key in ("splits", "reading", "notes")
    ]
    stopped = hub.load(tmp_path, dataset="o/captions", bad_rows="stop")
    assert stopped["error"] == "o/captions[train], row 1, column 'caption': null instead of text"
    # What an earlier version chose by itself is not trusted.
    (source,) = (tmp_path / "distillkit").rglob("source.json")
    source.write_text(source.read_text().replace('"format": 2', '"format": 1'))
    assert hub.load(tmp_path, dataset="o/captions")["splits"] == first["splits"]
    assert len(hub.requests) > 1


def test_many_bad_rows_of_a_set_stop(hub: HubServer, tmp_path: Path) -> None:
    stopped = hub.load(tmp_path, dataset="o/gaps")
    assert stopped["error"].startswith(
        "o/gaps: 30 of 600 rows hold no text (o/gaps[train], row 1 (line 1), column 'body'"
    )
    # They were kept, and are judged again.
    found = hub.load(tmp_path, dataset="o/gaps", bad_rows="skip-all", offline=True)
    assert len(found["splits"]["train"]) == 570
    assert found["reading"]["columns"]["o/gaps"]["column"] == "body"
    assert found["reading"]["bad_rows"]["o/gaps"]["rows"] == 30


def test_the_hub_may_fail_for_a_moment(hub: HubServer, tmp_path: Path) -> None:
    hub.failures = 1
    found = hub.load(tmp_path, dataset="o/lines")
    assert {split: len(documents) for split, documents in found["splits"].items()} == {"train": 30, "test": 9}
    assert "the Hub answered with status 503; trying again in 1 s (1 of 3)" in found["stderr"]


def test_what_other_programs_left_on_this_machine_is_found(hub: HubServer, tmp_path: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": hub.url}
    for name, program in {
        "downloaded": "from huggingface_hub import snapshot_download as get; get('o/lines', repo_type='dataset')",
        "prepared": "from datasets import load_dataset; load_dataset('o/lines')",
    }.items():
        home = tmp_path / name
        home.mkdir()
        command = [sys.executable, "-c", program]
        warm_python.run(command, env=environment | {"HF_HOME": str(home)}, check=True, capture_output=True)
        for cached in home.rglob("snapshots") if name == "prepared" else ():
            cached.rename(cached.with_name("gone"))
        found = hub.load(home, dataset="o/lines", offline=True)
        assert {split: len(documents) for split, documents in found["splits"].items()} == {"train": 30, "test": 9}


@pytest.mark.parametrize(
    ("settings", "code", "words", "hint"),
    [
        ({"dataset": "o/none"}, 3, "data set o/none: not on the Hub, or private", "--dataset-path"),
        ({"dataset": "o/gated"}, 3, "data set o/gated: access has to be asked for", "HF_TOKEN"),
        ({"dataset": "o/lines@v9"}, 3, "no revision 'v9'", "'@'"),
        ({"dataset": "o/program"}, 3, "programs of a data set are never run", "python-docs"),
        ({"dataset": "o/pictures"}, 3, "no data files of a known format", "--dataset-path"),
        ({"dataset": "Salesforce/wikitext:small"}, 2, "wikitext-103-raw-v1, wikitext-2-raw-v1", ":CONFIGURATION"),
        ({"dataset": "pokemon", "text_column": "text_en_"}, 2, "columns: image, text_en, text_zh", "text_en?"),
        ({"dataset": "pokemon", "text_column": "image"}, 2, "'image' does not hold text", "--text-column"),
        ({"dataset": "o/both"}, 2, "not clear what is to be read: messages (column messages); column text", "--data-format"),
        ({"dataset": "o/lines", "data_format": "messages"}, 2, "no column of turns (--data-format messages)", "say what"),
        ({"dataset": "o/lines", "offline": True}, 3, "offline mode is on", "python-docs"),
        (
            {"dataset": "mine", "datasets": {"mine": {"id": "o/lines", "splits": {"train": "all"}}}},
            2, "no split 'all'; splits: train, test", None,
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_said(
    hub: HubServer, tmp_path: Path, settings: dict[str, Any], code: int, words: str, hint: str | None
) -> None:
    found = hub.load(tmp_path, **settings)
    assert found.get("code") == code
    assert words in found["error"]
    assert (hint or "") in (found["hint"] or "")
    assert not (tmp_path / "ran").exists()


def test_conversations_of_the_hub(hub: HubServer, tmp_path: Path) -> None:
    found = hub.load(tmp_path, dataset="o/chats")
    # Pictures beside the turns are not fetched.
    assert hub.served() < 1_000_000
    assert len(found["splits"]["train"]) == 600
    assert found["splits"]["train"][0] == [
        '["user", "Who is number 0?"]\n["assistant", "A sentence of some words about creature 0."]', "o/chats[train]:1",
    ]  # fmt: skip
    assert found["reading"]["formats"]["o/chats"] == {
        "format": "messages", "columns": {"turns": "messages"}, "why": "the only column of turns", "written": [],
    }  # fmt: skip
    # What was kept on this machine is read again with other settings, and without a network.
    again = hub.load(tmp_path, dataset="o/chats", offline=True, system_prompt="Be brief.")
    assert again["splits"]["train"][0][0].startswith('["system", "Be brief."]\n["user", "Who is')
    assert again["reading"]["formats"] == found["reading"]["formats"]


def test_pairs_of_the_hub(hub: HubServer, tmp_path: Path) -> None:
    found = hub.load(tmp_path, dataset="o/pairs")
    assert {split: len(rows) for split, rows in found["splits"].items()} == {"train": 199, "test": 100}
    assert found["reading"]["formats"]["o/pairs"]["columns"] == {
        "question": "instruction", "input": "input", "answer": "output",
    }  # fmt: skip
    assert "no answer of the assistant" in found["reading"]["bad_rows"]["o/pairs"]["first"][0]
    # In black box it is a prompt like the others.
    black = hub.load(tmp_path, dataset="o/pairs", box_type="black", offline=True)
    assert {split: len(rows) for split, rows in black["splits"].items()} == {"train": 200, "test": 100}
    assert [text for text, _ in black["splits"]["train"] if "\n" not in text] == ['["user", "Describe number 7."]']


def test_no_hub_at_all(hub: HubServer, tmp_path: Path) -> None:
    found = hub.load(tmp_path, url="http://127.0.0.1:9", dataset="wikitext")
    assert found["code"] == 3
    assert "the Hub cannot be reached, and no complete copy of it is on this machine" in found["error"]
    assert "--dataset python-docs" in found["hint"]


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "distillkit").write_text("a file where the folder would be")
    found = hub.load(tmp_path, dataset="o/lines")
    assert len(found["splits"]["train"]) == 30
    assert "could not be kept for the next run" in found["notes"][0]
