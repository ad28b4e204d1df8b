"""A small Hugging Face Hub on 127.0.0.1: what the Hub's client asks for, kept in memory, with faults on request."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["TOKEN", "Hub"]
TOKEN = "hf_of_me"
"""The token of the user `me`."""


@dataclass
class Repository:
    """Commits of a repository: the files of each by name, and the branches."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, changes: dict[str, bytes]) -> str:
        files = self.commits.get(self.branches.get(branch, ""), {}) | changes
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


class Hub:
    """The server.

    Attributes:
        repositories: by owner and name.
        objects: uploaded files by their sha256.
        break_upload: bytes after which the next upload is broken off; None for none.
        break_download: likewise for downloads, and how many of them.
        damage: whether a bit of each downloaded file is another one.
        requests: method, path and range of every request.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.break_upload: int | None = None
        self.break_download: tuple[int, int] | None = None
        self.damage = False
        self.requests: list[tuple[str, str, str | None]] = []
        hub = self

        class Bound(Handler):
            server_hub = hub

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Handler(http.server.BaseHTTPRequestHandler):
    server_hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        hub, path = self.server_hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range")))
        try:
            for pattern, method in ROUTES:
                if found := re.fullmatch(pattern, path):
                    getattr(self, method)(*found.groups())
                    return
            raise Refused(404, message=f"no such route {path}")
        except Refused as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            self._send(error.status, b"{}", {key: value for key, value in headers.items() if value})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode())

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts: list[bytes] = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _user(self, required: bool = False) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token != TOKEN:
            self._body()
            raise Refused(401, message="Invalid credentials in Authorization header")
        if required and not token:
            self._body()
            raise Refused(401, message="Authorization required")
        return "me" if token else None

    def _repository(self, name: str, *, write: bool = False) -> Repository:
        user, found = self._user(required=write), self.server_hub.repositories.get(name)
        if found is None or (found.private and user != name.partition("/")[0]):
            raise Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and user != name.partition("/")[0]:
            self._body()
            raise Refused(403, message="you have no right to write")
        return found

    def _commit_of(self, repository: Repository, revision: str) -> str:
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def whoami(self) -> None:
        self._json({"type": "user", "name": self._user(required=True)})

    def validate(self) -> None:
        content = json.loads(self._body())["content"]
        self._json({"errors": [], "warnings": [] if content.startswith("---\n") else [{"message": "empty"}]})

    def create(self) -> None:
        user, wanted = self._user(required=True), json.loads(self._body())
        name = f"{wanted.get('organization') or user}/{wanted['name']}"
        if name in self.server_hub.repositories:
            self._send(409, json.dumps({"url": f"{self.server_hub.url}/{name}"}).encode())
            return
        if not name.startswith(f"{user}/"):
            raise Refused(403, message=f"you have no right to create a model under {wanted['organization']}")
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        made = self.server_hub.repositories[name] = Repository(private)
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.server_hub.url}/{name}", "name": name})

    def branch(self, name: str, branch: str) -> None:
        repository, _ = self._repository(name, write=True), self._body()
        if branch in repository.branches:
            raise Refused(409, message="Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self._json({})

    def info(self, name: str, revision: str | None = None) -> None:
        repository = self._repository(name)
        sha = self._commit_of(repository, revision or "main")
        files = [{"rfilename": file} for file in repository.commits[sha]]
        self._json({"id": name, "sha": sha, "private": repository.private, "siblings": files, "tags": []})

    def tree(self, name: str, revision: str) -> None:
        repository = self._repository(name)
        files = repository.commits[self._commit_of(repository, revision)]
        self._json([{"type": "file", "path": k, "size": len(v), "oid": _git_sum(v)} for k, v in files.items()])

    def preupload(self, name: str, revision: str) -> None:
        repository = self._repository(name, write=True)
        held = repository.commits[self._commit_of(repository, revision)]
        files = []
        for file in json.loads(self._body())["files"]:
            mode = "lfs" if file["path"].endswith((".safetensors", ".png", ".bin")) else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
            if (content := held.get(file["path"])) is not None:
                files[-1]["oid"] = hashlib.sha256(content).hexdigest() if mode == "lfs" else _git_sum(content)
        self._json({"files": files})

    def batch(self, name: str) -> None:
        self._repository(name, write=True)
        objects = []
        for wanted in json.loads(self._body())["objects"]:
            oid = wanted["oid"]
            objects.append(dict(wanted))
            if oid not in self.server_hub.objects:
                objects[-1]["actions"] = {
                    "upload": {"href": f"{self.server_hub.url}/lfs/{oid}"},
                    "verify": {"href": f"{self.server_hub.url}/lfs-verify/{oid}"},
                }
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if (most := self.server_hub.break_upload) is not None:
            self.server_hub.break_upload = None
            self.rfile.read(most)
            self.close_connection = True
            self.connection.close()
            return
        content = self._body()
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, message="another file")
        self.server_hub.objects[oid] = content
        self._send(200, b"")

    def verify(self, oid: str) -> None:
        self._body()
        if oid not in self.server_hub.objects:
            raise Refused(404, message="no such object")
        self._json({})

    def commit(self, name: str, revision: str) -> None:
        repository, changes = self._repository(name, write=True), {}
        for line in self._body().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                changes[value["path"]] = self.server_hub.objects[value["oid"]]
        sha = repository.commit(revision, changes)
        self._json({"commitUrl": f"{self.server_hub.url}/{name}/commit/{sha}", "commitOid": sha})

    def resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._repository(name)
        sha = self._commit_of(repository, revision)
        content = repository.commits[sha].get(file)
        if content is None:
            raise Refused(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": sha}
        if file.endswith((".safetensors", ".png", ".bin")):
            oid = hashlib.sha256(content).hexdigest()
            self.server_hub.objects[oid] = content
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            self._send(
                302, b"", headers | {"Location": self.server_hub.url.replace("127.0.0.1", "localhost") + f"/cdn/{oid}"}
            )
        else:
            self._send(200, content, headers | {"ETag": f'"{_git_sum(content)}"'})

    def cdn(self, oid: str) -> None:
        hub, content = self.server_hub, self.server_hub.objects[oid]
        if hub.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        headers = {"ETag": f'"{oid}"', "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        body = content[start:]
        if hub.break_download is not None and self.command == "GET":
            most, times = hub.break_download
            hub.break_download = (most, times - 1) if times > 1 else None
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:most])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self._send(206 if wanted else 200, body, headers if wanted else {"ETag": headers["ETag"]})


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (r"/api/whoami-v2", "whoami"),
    (r"/api/validate-yaml", "validate"),
    (r"/api/repos/create", "create"),
    (rf"/api/models/{NAME}/preupload/(.+)", "preupload"),
    (rf"/api/models/{NAME}/commit/(.+)", "commit"),
    (rf"/api/models/{NAME}/branch/(.+)", "branch"),
    (rf"/api/models/{NAME}/tree/(.+)", "tree"),
    (rf"/api/models/{NAME}/revision/(.+)", "info"),
    (rf"/api/models/{NAME}", "info"),
    (rf"/{NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"/lfs/([0-9a-f]+)", "upload"),
    (r"/lfs-verify/([0-9a-f]+)", "verify"),
    (rf"/{NAME}/resolve/(.+)/([^/]+)", "resolve"),
    (r"/cdn/([0-9a-f]+)", "cdn"),
)


def _git_sum(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
