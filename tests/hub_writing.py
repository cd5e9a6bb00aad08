"""The writing half of the tests' Hub: repositories made, files uploaded through Git LFS, commits. See hub_server.py.

Without Xet: a client has to be started with HF_HUB_DISABLE_XET=1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub_server import HubServer


class WriteRefusedError(Exception):
    """A request that is refused.

    Attributes:
        status: of the answer.
        code: X-Error-Code of the answer.
    """

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Writing:
    """What may be written by whom, and what was.

    Attributes:
        owners: token to the owner whose repositories it may write.
        private: ids of private repositories.
        commits: summaries, in order.
        uploads: how many LFS objects came in.
    """

    def __init__(self, hub: HubServer) -> None:
        self._hub = hub
        self.owners: dict[str, str] = {}
        self.private: set[str] = set()
        self.commits: list[str] = []
        self.uploads = 0
        self._objects: dict[str, bytes] = {}

    def answer(self, match: re.Match[str], body: bytes, authorization: str | None) -> Any:
        """The JSON that answers a request."""
        if match["oid"]:
            return self._upload(match["oid"], body)
        if match["create"] == "validate-yaml":
            return {"errors": [], "warnings": []}
        owner = self.owners.get((authorization or "").removeprefix("Bearer "))
        if owner is None:
            raise WriteRefusedError(401, None, "Invalid username or password.")
        if match["create"]:
            return self._create(json.loads(body), owner)
        repo_id = match["id"] or match["lfs_id"]
        if repo_id.partition("/")[0] != owner:
            raise WriteRefusedError(403, None, f"You don't have the rights to write to {repo_id}")
        if match["lfs_id"]:
            return self._batch(json.loads(body))
        if match["verb"] == "preupload":
            return self._preupload(repo_id, json.loads(body))
        return self._commit(repo_id, [json.loads(line) for line in body.decode().splitlines()])

    def _create(self, asked: dict[str, Any], owner: str) -> dict[str, Any]:
        of = asked.get("organization") or owner
        repo_id = f"{of}/{asked['name']}"
        if of != owner:
            raise WriteRefusedError(
                403, None, f'You don\'t have the rights to create a model under the namespace "{of}"'
            )
        folder, url = self._hub.folder(repo_id), f"{self._hub.url}/{repo_id}"
        if any(folder.iterdir()):
            raise WriteRefusedError(409, None, "You already created this model repo")
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        if asked.get("visibility") == "private" or asked.get("private"):
            self.private.add(repo_id)
        return {"url": url, "name": repo_id, "id": repo_id}

    def _preupload(self, repo_id: str, asked: dict[str, Any]) -> dict[str, Any]:
        there = self._hub._files("models", repo_id)
        answers = []
        for file in asked["files"]:
            known = there.get(file["path"])
            mode = "lfs" if Path(file["path"]).suffix in (".safetensors", ".gguf", ".model", ".bin") else "regular"
            oid = None if known is None else known.etag
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def _batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for one in asked["objects"]:
            missing = one["oid"] not in self._objects
            actions = {"actions": {"upload": {"href": f"{self._hub.url}/lfs-upload/{one['oid']}"}}} if missing else {}
            objects.append({"oid": one["oid"], "size": one["size"], **actions})
        return {"transfer": "basic", "objects": objects}

    def _upload(self, oid: str, body: bytes) -> dict[str, Any]:
        if hashlib.sha256(body).hexdigest() != oid:
            raise WriteRefusedError(400, None, "the content has another digest")
        self._objects[oid] = body
        self.uploads += 1
        return {}

    def _commit(self, repo_id: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        folder = self._hub.folder(repo_id)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
                continue
            path = folder / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if line["key"] == "file":
                path.write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                path.write_bytes(self._objects[value["oid"]])
            elif line["key"] == "deletedFile":
                path.unlink()
        commit = self._hub.commit(repo_id)
        return {"success": True, "commitOid": commit, "commitUrl": f"{self._hub.url}/{repo_id}/commit/{commit}"}
