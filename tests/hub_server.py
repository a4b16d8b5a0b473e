"""A stand-in for the hub's HTTP interface on this machine, as far as pushing and fetching models goes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
LARGE = (".safetensors", ".onnx", ".bin")


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # the newest last
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, changed: dict[str, bytes]) -> str:
        files = {**(self.commits[self.branches["main"]] if self.branches else {}), **changed}
        text = json.dumps([len(self.commits), sorted(hashlib.sha256(each).hexdigest() for each in files.values())])
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = files
        self.branches["main"] = name
        return name

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """The hub; `faults` change answers.

    Attributes:
        faults: Of a path's end, what happens there: a status, or "cut", "tamper", "endless", "lie".
        requests: Of all requests, method and path.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Any] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def add(self, name: str, files: dict[str, bytes], **options: bool) -> str:
        self.repositories[name] = Repository(**options)
        return self.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n", **files})

    def files(self, name: str) -> dict[str, bytes]:
        repository = self.repositories[name]
        return repository.commits[repository.branches["main"]]

    @contextmanager
    def running(self) -> Iterator[Hub]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def answer(self, status: int, content: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, tree: object) -> None:
        self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = next((what for end, what in self.hub.faults.items() if path.endswith(end)), None)
        if isinstance(fault, int):
            self.answer(fault, b'{"error": "as asked"}')
            return
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, path):
                method(self, fault, **match.groupdict())
                return
        self.answer(404)

    @property
    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name: str) -> Repository | None:
        """The repository, unless the answer is that there is none for this user."""
        if self.headers.get("Authorization") and not self.known:
            message = "Invalid credentials in Authorization header"
            self.answer(401, b'{"error": "Invalid username or password."}', X_Error_Message=message)
            return None
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.known):
            status = 404 if self.known else 401
            self.answer(status, b'{"error": "Repository not found"}', X_Error_Code="RepoNotFound")
            return None
        return found

    def info(self, fault: object, name: str, revision: str | None = None) -> None:
        if (found := self.repository(name)) is None:
            return
        commit = found.find(revision or "main")
        if commit is None:
            self.answer(404, X_Error_Code="RevisionNotFound")
            return
        siblings = []
        for file, content in found.commits[commit].items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": _git_hash(content)}
            if file.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                entry |= {"blobId": "0" * 40, "lfs": {"size": len(content), "sha256": sha256, "pointerSize": 130}}
            if fault == "lie" and file.endswith(LARGE):
                entry["size"] = 2**40
            siblings.append(entry)
        self.json({"id": name, "sha": commit, "private": found.private, "siblings": siblings})

    def resolve(self, fault: object, name: str, revision: str, file: str) -> None:
        if (found := self.repository(name)) is None:
            return
        if found.gated:
            self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access to model is restricted")
            return
        commit = found.find(revision)
        content = found.commits.get(commit or "", {}).get(file)
        if content is None:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        headers = {"X-Repo-Commit": commit or "", "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if fault == "tamper":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        for header, value in headers.items():
            self.send_header(header, value)
        endless = fault == "endless" and self.command == "GET"
        if endless:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if endless:
            self.close_connection = True
            try:
                for _ in range(10_000):
                    self.wfile.write(bytes(2**16))
            except OSError:
                self.hub.requests.append("ended by the client")
        elif fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content)

    def create(self, fault: object) -> None:
        if not self.known:
            self.answer(401)
            return
        tree = json.loads(self.body)
        name = f"{tree['organization']}/{tree['name']}"
        private = tree.get("visibility") == "private" or bool(tree.get("private"))
        self.hub.repositories[name] = Repository(private=private)
        self.hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.json({"url": f"{self.hub.url}/{name}"})

    def validate(self, fault: object) -> None:
        head = json.loads(self.body)["content"].split("---")[1]
        if "license: nonsense" in head:
            message = {"errors": [{"message": '"license" must be one of [mit, …]'}], "warnings": []}
            self.answer(400, json.dumps(message).encode())
            return
        self.json({"errors": [], "warnings": []})

    def preupload(self, fault: object, name: str) -> None:
        if (found := self.repository(name)) is None:
            return
        files = []
        for each in json.loads(self.body)["files"]:
            old = found.commits[found.branches["main"]].get(each["path"])
            large = each["path"].endswith(LARGE)
            digest = old and (hashlib.sha256(old).hexdigest() if large else _git_hash(old))
            mode = "lfs" if large else "regular"
            files.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": False, "oid": digest})
        self.json({"files": files})

    def lfs_batch(self, fault: object, name: str) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}}
            for each in json.loads(self.body)["objects"]
        ]
        self.json({"transfer": "basic", "objects": objects})

    def put(self, fault: object, digest: str) -> None:
        self.hub.stored[digest] = self.body
        self.answer(200)

    def commit(self, fault: object, name: str) -> None:
        if (found := self.repository(name)) is None:
            return
        lines = [json.loads(line) for line in self.body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if fault == "race" or (parent is not None and parent != found.branches["main"]):
            self.answer(412, b'{"error": "A commit has happened since."}')
            return
        changed = {}
        for line in lines[1:]:
            value = line["value"]
            changed[value["path"]] = (
                self.hub.stored[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
            )
        commit = found.commit(changed)
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit, "success": True})


for _method in ("GET", "HEAD", "POST", "PUT"):
    setattr(_Handler, f"do_{_method}", _Handler.handle_any)

_REPO = r"(?P<name>[^/]+/[^/]+)"
_ROUTES = [
    (r"/api/repos/create", _Handler.create),
    (r"/api/validate-yaml", _Handler.validate),
    (rf"/api/models/{_REPO}/preupload/main", _Handler.preupload),
    (rf"/api/models/{_REPO}/commit/main", _Handler.commit),
    (rf"/api/models/{_REPO}/revision/(?P<revision>.+)", _Handler.info),
    (rf"/api/models/{_REPO}", _Handler.info),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"/large/(?P<digest>\w+)", _Handler.put),
    (rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler.resolve),
]


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
