"""A Hugging Face Hub on this machine, for tests: folders served over the Hub's own HTTP protocol, with faults on demand.

    with HubServer(root) as server:      # {root}/models/{name or org/name}/…, {root}/datasets/{org}/{name}/…
        server.fail("config.json", status=503, times=2)
        server.cut("model.safetensors", after_bytes=1000)
        server.gate("org/closed", token="hf_letmein")
        server.let_write("hf_mine", "org")
        …                                # HF_ENDPOINT=server.url in a subprocess, or endpoint=server.url

It answers what huggingface_hub and datasets ask when they read: repository information, trees, path information and
files with byte ranges. There are no Xet headers, so files come over plain HTTP. hub_writing.py adds what huggingface_hub
asks when it makes a repository and commits to it.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hub_writing import WriteRefusedError, Writing

# What the Hub keeps in Git LFS: such a file's ETag is its SHA-256, that of any other its Git blob id.
_LFS_SUFFIXES = {".arrow", ".bin", ".gguf", ".gz", ".h5", ".model", ".parquet", ".pt", ".pth", ".safetensors", ".zst"}
_DATE = "2024-05-01T12:00:00.000Z"
_BLOCK_BYTES = 1 << 16

_ID = r"(?P<id>[^/]+(?:/[^/]+)??)"
_API = re.compile(
    rf"/api/(?P<kind>models|datasets)/{_ID}(?:/(?P<verb>revision|tree|paths-info|refs)(?:/(?P<revision>[^/]+)(?P<path>/.*)?)?)?"
)
_FILE = re.compile(rf"/(?:(?P<kind>datasets)/)?{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_WRITE = re.compile(
    rf"/api/(?P<create>repos/create|validate-yaml)|/api/models/{_ID}/(?P<verb>preupload|commit)/main"
    rf"|/(?P<lfs_id>[^/]+/[^/]+)\.git/info/lfs/objects/batch|/lfs-upload/(?P<oid>[0-9a-f]{{64}})"
)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Request:
    """One request that was answered; `bytes_sent` counts the body only, `path` has its query."""

    method: str
    path: str
    status: int
    bytes_sent: int


@dataclass
class _Fault:
    """Something to go wrong with the next `remaining` matching requests (None: with all)."""

    path_substring: str
    remaining: int | None
    status: int = 0
    after_bytes: int = 0

    def strikes(self, path: str) -> bool:
        if self.path_substring not in path or self.remaining == 0:
            return False
        if self.remaining is not None:
            self.remaining -= 1
        return True


class _RefusedError(Exception):
    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    blob_id: str
    sha256: str | None

    @property
    def etag(self) -> str:
        return self.sha256 or self.blob_id


class HubServer:
    """Serves the repositories below a folder from `127.0.0.1` until the `with` block ends.

    Files may be added or changed while it runs; a repository's commit follows from its content.

    Attributes:
        url: for HF_ENDPOINT or `endpoint=`.
        requests: what was answered so far, in order.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._failures: list[_Fault] = []
        self._cuts: list[_Fault] = []
        self._gated: dict[str, str | None] = {}
        self.writing = Writing(self)
        self._digests: dict[tuple[Path, int, int], _File] = {}
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def folder(self, repo_id: str, kind: str = "models") -> Path:
        """The folder whose files are the repository `repo_id`, made if it is missing."""
        folder = self.root / kind / repo_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, repo_id: str, kind: str = "models") -> str:
        """The 40 hexadecimal digits of the repository's only commit: a digest of its files."""
        listing = [(name, file.etag) for name, file in self._files(kind, repo_id).items()]
        return hashlib.sha1(json.dumps([kind, repo_id, listing]).encode()).hexdigest()

    def fail(self, path_substring: str, status: int = 503, times: int | None = 1) -> None:
        """Answer `status` to the next `times` requests (None: to all) whose path and query contain the text."""
        self._failures.append(_Fault(path_substring, times, status=status))

    def cut(self, path_substring: str, after_bytes: int, times: int | None = 1) -> None:
        """Close the connection after so many bytes of the body of a GET that promised more."""
        self._cuts.append(_Fault(path_substring, times, after_bytes=after_bytes))

    def gate(self, repo_id: str, token: str | None = None) -> None:
        """Hand out this repository's files to bearers of `token` only (None: to nobody)."""
        self._gated[repo_id] = token

    def let_write(self, token: str, owner: str) -> None:
        """Let bearers of `token` make repositories of `owner`, and commit to them."""
        self.writing.owners[token] = owner

    def heal(self) -> None:
        """Forget all faults and gates."""
        self._failures.clear()
        self._cuts.clear()
        self._gated.clear()

    def bytes_served(self, path_substring: str = "") -> int:
        """How many bytes of bodies went out for requests whose path contains the text."""
        with self._lock:
            return sum(request.bytes_sent for request in self.requests if path_substring in request.path)

    def _note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def _failure(self, path: str) -> int | None:
        with self._lock:
            return next((fault.status for fault in self._failures if fault.strikes(path)), None)

    def _cut_after(self, path: str, length: int) -> int | None:
        with self._lock:
            cuts = (fault.after_bytes for fault in self._cuts if fault.after_bytes < length and fault.strikes(path))
            return next(cuts, None)

    def _check_gate(self, repo_id: str, authorization: str | None) -> None:
        if repo_id not in self._gated:
            return
        token = self._gated[repo_id]
        if authorization is None:
            raise _RefusedError(
                401,
                "GatedRepo",
                f"Access to model {repo_id} is restricted. You must have access to it and be authenticated to access it."
                " Please log in.",
            )
        if token is None or authorization != f"Bearer {token}":
            raise _RefusedError(
                403,
                "GatedRepo",
                f"Access to model {repo_id} is restricted and you are not in the authorized list."
                f" Visit {self.url}/{repo_id} to ask for access.",
            )

    def _files(self, kind: str, repo_id: str) -> dict[str, _File]:
        """The files of a repository by their path in it, sorted."""
        folder = self.root / kind / repo_id
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): self._file(path) for path in paths}

    def _file(self, path: Path) -> _File:
        status = path.stat()
        key = path, status.st_size, status.st_mtime_ns
        if key not in self._digests:
            content = path.read_bytes()
            blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sha256 = hashlib.sha256(content).hexdigest() if path.suffix in _LFS_SUFFIXES else None
            self._digests[key] = _File(path, len(content), blob_id, sha256)
        return self._digests[key]

    def _repository(
        self, kind: str, repo_id: str, revision: str | None, authorized: bool
    ) -> tuple[str, dict[str, _File]]:
        """Commit and files of a repository at a revision: `main` or the commit."""
        folder = (self.root / kind / repo_id).resolve()
        files = self._files(kind, repo_id) if folder.is_relative_to(self.root) else {}
        if not files or (repo_id in self.writing.private and not authorized):
            if authorized:
                raise _RefusedError(404, "RepoNotFound", "Repository not found")
            # The Hub does not tell strangers whether a repository is private or missing.
            raise _RefusedError(401, "RepoNotFound", "Invalid username or password.")
        commit = self.commit(repo_id, kind)
        if revision not in (None, "main", "refs/heads/main", commit):
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, files

    def _api(
        self, match: re.Match[str], query: dict[str, list[str]], form: dict[str, list[str]], authorized: bool
    ) -> Any:
        """The JSON that answers a request to /api/…"""
        kind, repo_id, verb = match["kind"], unquote(match["id"]), match["verb"]
        revision = unquote(match["revision"]) if match["revision"] else None
        commit, files = self._repository(kind, repo_id, revision, authorized)
        if verb is None or verb == "revision":
            return self._information(repo_id, commit, files)
        if verb == "refs":
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit}
            return {"branches": [branch], "tags": [], "converts": []}
        expand = (query.get("expand") or form.get("expand") or ["false"])[0].lower() == "true"
        entries = _entries(files, commit if expand else None)
        if verb == "paths-info":
            return [entries[path.strip("/")] for path in form.get("paths", []) if path.strip("/") in entries]
        prefix = unquote(match["path"] or "").strip("/")
        if prefix and entries.get(prefix, {}).get("type") != "directory":
            raise _RefusedError(404, "EntryNotFound", f"{prefix} does not exist on {revision!r}")
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        below = {path: entry for path, entry in entries.items() if not prefix or path.startswith(prefix + "/")}
        depth = prefix.count("/") + 1 if prefix else 0
        return [entry for path, entry in below.items() if recursive or path.count("/") == depth]

    def _information(self, repo_id: str, commit: str, files: dict[str, _File]) -> dict[str, Any]:
        return {
            "_id": commit[:24],
            "id": repo_id,
            "modelId": repo_id,
            "author": repo_id.partition("/")[0] if "/" in repo_id else None,
            "sha": commit,
            "createdAt": _DATE,
            "lastModified": _DATE,
            "private": repo_id in self.writing.private,
            "gated": "auto" if repo_id in self._gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": path} for path in files],
        }

    def _resolve(self, match: re.Match[str], authorization: str | None) -> tuple[str, _File]:
        """Commit and file that answer a request to …/resolve/…"""
        repo_id, revision, path = unquote(match["id"]), unquote(match["revision"]), unquote(match["path"])
        commit, files = self._repository(match["kind"] or "models", repo_id, revision, authorization is not None)
        self._check_gate(repo_id, authorization)
        if path not in files:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        return commit, files[path]


def _entries(files: dict[str, _File], commit: str | None) -> dict[str, dict[str, Any]]:
    """Files and folders by path, as the Hub's tree lists them; with the last commit if one is given."""
    last = {"lastCommit": {"id": commit, "title": "Upload", "date": _DATE}} if commit else {}
    entries: dict[str, dict[str, Any]] = {}
    for path, file in files.items():
        for parent in reversed(Path(path).parents[:-1]):
            name = parent.as_posix()
            tree_id = hashlib.sha1(name.encode()).hexdigest()
            entries.setdefault(name, {"type": "directory", "oid": tree_id, "size": 0, "path": name, **last})
        entry = {"type": "file", "oid": file.blob_id, "size": file.size, "path": path, **last}
        if file.sha256:
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
        entries[path] = entry
    return entries


def _requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte asked for, None for the whole file; last < first if there are none such."""
    match = _RANGE.fullmatch(header or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        return max(0, size - int(match[2])), size - 1
    return int(match[1]), min(int(match[2]), size - 1) if match[2] else size - 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were killed in mid-transfer are expected; what else goes wrong is seen as a status of 500."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: `HubServer.requests` is the log."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self._body()
        try:
            self._route(body)
        except _RefusedError as refusal:
            self._refuse(refusal)
        except ConnectionError:
            self.close_connection = True
        except Exception as error:
            self._refuse(_RefusedError(500, None, f"{type(error).__name__}: {error}"))
            raise

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _route(self, body: bytes) -> None:
        hub = self.server_hub
        status = hub._failure(self.path)
        if status is not None:
            raise _RefusedError(status, None, "injected failure")
        url = urlsplit(self.path)
        authorization = self.headers.get("Authorization")
        if (match := _WRITE.fullmatch(url.path)) and self.command != "GET":
            try:
                answer = hub.writing.answer(match, body, authorization)
            except WriteRefusedError as error:
                raise _RefusedError(error.status, error.code, str(error)) from error
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json; charset=utf-8"})
        elif match := _API.fullmatch(url.path):
            form = parse_qs(body.decode("utf-8", "replace"))
            answer = hub._api(match, parse_qs(url.query), form, authorization is not None)
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json; charset=utf-8"})
        elif match := _FILE.fullmatch(url.path):
            self._send_file(*hub._resolve(match, authorization))
        else:
            raise _RefusedError(404, None, "Sorry, we can't find the page you are looking for.")

    def _refuse(self, refusal: _RefusedError) -> None:
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "X-Error-Message": quote(refusal.message, safe=" ,.:'/"),
        }
        if refusal.code:
            headers["X-Error-Code"] = refusal.code
        self._send(refusal.status, json.dumps({"error": refusal.message}).encode(), headers)

    def _send_file(self, commit: str, file: _File) -> None:
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "ETag": f'"{file.etag}"',
            "X-Repo-Commit": commit,
        }
        if file.sha256:
            headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.sha256}"'}
        span = _requested_range(self.headers.get("Range"), file.size)
        if span is None:
            self._send(200, file.path, headers, 0, file.size)
        elif span[0] > span[1]:
            self._send(416, b"", headers | {"Content-Range": f"bytes */{file.size}"})
        else:
            headers["Content-Range"] = f"bytes {span[0]}-{span[1]}/{file.size}"
            self._send(206, file.path, headers, span[0], span[1] - span[0] + 1)

    def _send(
        self, status: int, content: bytes | Path, headers: dict[str, str], start: int = 0, length: int | None = None
    ) -> None:
        """Send `length` bytes of `content` from `start`, or fewer where a cut is due; note what went out."""
        hub = self.server_hub
        if length is None:
            length = len(content) if isinstance(content, bytes) else content.stat().st_size - start
        cut = hub._cut_after(self.path, length) if self.command == "GET" and status < 300 else None
        wanted = 0 if self.command == "HEAD" else length if cut is None else cut
        sent = 0
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if isinstance(content, bytes):
                self.wfile.write(content[start : start + wanted])
                sent = wanted
            else:
                with content.open("rb") as stream:
                    stream.seek(start)
                    while sent < wanted and (block := stream.read(min(_BLOCK_BYTES, wanted - sent))):
                        self.wfile.write(block)
                        sent += len(block)
        finally:
            hub._note(Request(self.command, self.path, status, sent))
            if sent < wanted or cut is not None:
                self.close_connection = True
