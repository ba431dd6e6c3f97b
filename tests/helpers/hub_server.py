"""A small Hub on 127.0.0.1. It speaks the protocol of huggingface_hub, and fails where a test says so.

It keeps repositories without git: commits (path -> content), branches, pull requests, and large files by their SHA-256.
Its answers follow the source of huggingface_hub (hf_api.py, _commit_api.py, lfs.py, file_download.py), which asks them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = 10_000
"""Bytes from which a file goes by LFS; .safetensors always does."""


@dataclass
class Commit:
    """What a repository held at one moment."""

    oid: str
    parent: str | None
    files: dict[str, bytes]
    title: str
    description: str = ""


@dataclass
class Repository:
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)

    def add(self, branch: str, parent: str | None, files: dict[str, bytes], title: str, description: str = "") -> str:
        oid = hashlib.sha1(f"{branch} {len(self.commits)} {title}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, files, title, description)
        self.branches[branch] = oid
        return oid

    def find(self, revision: str) -> Commit | None:
        return self.commits.get(self.branches.get(revision, revision))

    def history(self, branch: str = "main") -> list[Commit]:
        """The branch's commits, the latest first."""
        commits, oid = [], self.branches[branch]
        while oid:
            commits.append(self.commits[oid])
            oid = commits[-1].parent
        return commits


@dataclass
class Failure:
    """An error in answer to the next `times` requests that match `pattern` ("PUT /lfs/...").

    A status of 0 cuts the connection after some of the body was read.
    """

    pattern: str
    status: int
    times: int = 1_000
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class Hub:
    """The server's repositories and the requests that it got."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.endpoint = ""
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures: list[Failure] = []
        self.before_commit: list[object] = []
        self.lock = threading.RLock()

    def fail(self, pattern: str, status: int, times: int = 1_000, message: str = "", **headers: str) -> None:
        self.failures.append(Failure(pattern, status, times, message, headers))

    def create(self, repo_id: str, files: dict[str, bytes] | None = None, private: bool = False) -> Repository:
        repository = self.repositories[repo_id] = Repository(private)
        repository.add("main", None, {".gitattributes": b"", **(files or {})}, "initial commit")
        return repository

    def count(self, pattern: str) -> int:
        """How many requests so far match `pattern`."""
        return sum(re.search(pattern, request) is not None for request in self.requests)


@contextmanager
def hub(token: str) -> Iterator[Hub]:
    """A running server; `endpoint` is its address."""
    state = Hub(token)
    handler = type("Handler", (_Handler,), {"hub": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def is_large(path: str, size: int) -> bool:
    return path.endswith(".safetensors") or size >= LARGE


def blob(data: bytes) -> str:
    """git's own hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Answer(Exception):  # noqa: N818
    """Ends a request with an error."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        self.status, self.message = status, message
        self.headers = {**({"X-Error-Code": code} if code else {}), "X-Error-Message": message, **headers}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    hub: Hub

    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(\w[\w.-]*/[\w.-]+)/preupload/(.+)", "preupload"),
        ("POST", r"/api/models/(\w[\w.-]*/[\w.-]+)/commit/(.+)", "commit"),
        ("GET", r"/api/models/(\w[\w.-]*/[\w.-]+)/tree/([^/]+)", "tree"),
        ("GET", r"/api/models/(\w[\w.-]*/[\w.-]+)/discussions", "discussions"),
        ("GET", r"/api/models", "search"),
        ("GET", r"/api/models/(\w[\w.-]*/[\w.-]+)(?:/revision/(.+))?", "info"),
        ("POST", r"/(\w[\w.-]*/[\w.-]+)\.git/info/lfs/objects/batch", "batch"),
        ("POST", r"/lfs/verify", "verify"),
        ("PUT", r"/lfs/(\w+)", "put"),
        ("(?:GET|HEAD)", r"/(\w[\w.-]*/[\w.-]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        self.hub.requests.append(f"{self.command} {self.path}")
        try:
            self._fail(f"{self.command} {parts.path}")
            for method, pattern, name in self.ROUTES:
                route = re.fullmatch(pattern, parts.path)
                if route and re.fullmatch(method, self.command):
                    with self.hub.lock:
                        getattr(self, name)(*(unquote(part) if part else None for part in route.groups()))
                    return
            raise _Answer(404, "EntryNotFound", f"no route {self.command} {parts.path}")
        except _Answer as answer:
            self._drain()
            self._send(answer.status, {"error": answer.message}, answer.headers)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    # What fails on request

    def _fail(self, request: str) -> None:
        for failure in self.hub.failures:
            if failure.times and re.search(failure.pattern, request):
                failure.times -= 1
                if failure.status == 0:
                    self.rfile.read(min(1_000, int(self.headers.get("Content-Length", 0)) // 2))
                    self.close_connection = True
                    self.connection.close()
                    raise ConnectionAbortedError("cut, as the test asked")
                raise _Answer(failure.status, message=failure.message, **failure.headers)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError, OSError):  # the cut connection, seen from this side
            self.close_connection = True

    def finish(self) -> None:
        with suppress(ConnectionError, ValueError, OSError):
            super().finish()

    # The protocol

    def whoami(self) -> None:
        self._owner()
        self._send(200, {"name": "owner", "type": "user", "orgs": []})

    def create(self) -> None:
        self._owner()
        wanted = json.loads(self._body())
        repo_id = f"{wanted.get('organization') or 'owner'}/{wanted['name']}"
        if repo_id in self.hub.repositories:
            raise _Answer(409, message="You already created this model repo")
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.hub.create(repo_id, private=bool(private))
        self._send(200, {"url": f"{self.hub.endpoint}/{repo_id}"})

    def validate(self) -> None:
        content = json.loads(self._body())["content"]
        header = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        if not header:
            self._send(200, {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
            return
        metadata = yaml.safe_load(header[1])
        kinds = {"license": str, "language": (str, list), "tags": list, "pipeline_tag": str, "base_model": (str, list)}
        wrong = [name for name, kind in kinds.items() if name in metadata and not isinstance(metadata[name], kind)]
        errors = [{"message": f'"{name}" is of the wrong type'} for name in wrong]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, repo_id: str, revision: str) -> None:
        self._owner()
        commit = self._commit(repo_id, revision)
        files = []
        for file in json.loads(self._body())["files"]:
            path, data = file["path"], commit.files.get(file["path"])
            large = is_large(path, file["size"])
            oid = data and (hashlib.sha256(data).hexdigest() if large else blob(data))
            mode = "lfs" if large else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": files})

    def batch(self, repo_id: str) -> None:
        self._owner()
        self._repository(repo_id)
        objects = []
        for file in json.loads(self._body())["objects"]:
            answer = {"oid": file["oid"], "size": file["size"]}
            if file["oid"] not in self.hub.large:
                upload = {"href": f"{self.hub.endpoint}/lfs/{file['oid']}"}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.endpoint}/lfs/verify"}}
            objects.append(answer)
        self._send(200, {"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        data = self._body()
        if hashlib.sha256(data).hexdigest() != oid:
            raise _Answer(400, message="the bytes are not those that were announced")
        self.hub.large[oid] = data
        self._send(200, {})

    def verify(self) -> None:
        file = json.loads(self._body())
        if len(self.hub.large.get(file["oid"], b"")) != file["size"]:
            raise _Answer(404, message="this object was never uploaded")
        self._send(200, {})

    def commit(self, repo_id: str, revision: str) -> None:
        self._owner()
        lines = [json.loads(line) for line in self._body().splitlines()]
        for change in self.hub.before_commit:
            change()
        self.hub.before_commit.clear()
        repository = self._repository(repo_id)
        head = lines[0]["value"]
        latest = self._commit(repo_id, revision)
        parent = repository.find(head.get("parentCommit") or latest.oid)
        as_pr = self.query.get("create_pr") == ["1"]
        if not as_pr and parent is not latest:
            raise _Answer(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise _Answer(400, message=f"unknown operation {line['key']}")
        number = sum(name.startswith("refs/pr/") for name in repository.branches) + 1
        branch = f"refs/pr/{number}" if as_pr else revision
        oid = repository.add(branch, parent.oid, files, head["summary"], head["description"])
        url = f"{self.hub.endpoint}/{repo_id}"
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}"}
        self._send(200, answer | ({"pullRequestUrl": f"{url}/discussions/{number}"} if as_pr else {}))

    def search(self) -> None:
        """A page of two models, so that a client has to ask for the next one."""
        asked = {name: values[0] for name, values in self.query.items()}
        names = [
            name
            for name, repository in sorted(self.hub.repositories.items())
            if not repository.private
            and asked.get("author", name.split("/")[0]) == name.split("/")[0]
            and asked.get("search", "") in name.split("/")[1]
            and {*self.query.get("filter", [])} <= {*repository.tags}
        ]
        begin = int(asked.get("cursor", 0))
        models = []
        for name in names[begin : begin + 2]:
            files = self.hub.repositories[name].find("main").files
            config = json.loads(files["config.json"]) if "config.json" in files else {}
            known = {key: config[key] for key in ("model_type", "architectures") if key in config}
            models.append({"id": name, "modelId": name, "tags": self.hub.repositories[name].tags, "config": known})
        more = begin + 2 < len(names)
        given = "&".join(f"{name}={value}" for name, value in asked.items() if name != "cursor")
        link = f'<{self.hub.endpoint}/api/models?{given}&cursor={begin + 2}>; rel="next"'
        self._send(200, models, {"Link": link} if more else {})

    def discussions(self, repo_id: str) -> None:
        repository = self._repository(repo_id)
        numbers = [int(name.rpartition("/")[2]) for name in repository.branches if name.startswith("refs/pr/")]
        common = {"author": {"name": "owner"}, "repo": {"name": repo_id, "type": "model"}, "status": "open"}
        common |= {"isPullRequest": True, "createdAt": "2026-01-01T00:00:00.000Z"}
        listed = [{**common, "num": number, "title": "a change"} for number in sorted(numbers)]
        self._send(200, {"discussions": listed, "count": len(listed), "start": 0})

    def info(self, repo_id: str, revision: str | None) -> None:
        repository, commit = self._repository(repo_id), self._commit(repo_id, revision or "main")
        sized = "blobs" in self.query
        siblings = [
            {"rfilename": path} | ({"size": len(data)} if sized else {}) for path, data in sorted(commit.files.items())
        ]
        content = {"id": repo_id, "modelId": repo_id, "sha": commit.oid, "private": repository.private}
        self._send(200, content | {"siblings": siblings, "tags": [], "downloads": 0})

    def tree(self, repo_id: str, revision: str) -> None:
        entries = []
        for path, data in sorted(self._commit(repo_id, revision).files.items()):
            entry = {"type": "file", "path": path, "size": len(data), "oid": blob(data)}
            if is_large(path, len(data)):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        self._send(200, entries)

    def resolve(self, repo_id: str, revision: str, path: str) -> None:
        commit = self._commit(repo_id, revision)
        if path not in commit.files:
            raise _Answer(404, "EntryNotFound", f"{path} is not there", **{"X-Repo-Commit": commit.oid})
        data = commit.files[path]
        large = is_large(path, len(data))
        etag = hashlib.sha256(data).hexdigest() if large else blob(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        self._reply(200, data, "application/octet-stream", headers)

    # Repositories

    def _owner(self) -> None:
        token = self.headers.get("Authorization")
        if token is None:
            raise _Answer(401, message="Invalid username or password.")
        if token != f"Bearer {self.hub.token}":
            raise _Answer(401, message="Invalid credentials in Authorization header")

    def _repository(self, repo_id: str) -> Repository:
        repository = self.hub.repositories.get(repo_id)
        mine = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repository is None or (repository.private and not mine):
            # Like the real one: a stranger is not told whether it exists.
            raise _Answer(404 if mine else 401, "RepoNotFound", "Repository not found")
        return repository

    def _commit(self, repo_id: str, revision: str) -> Commit:
        commit = self._repository(repo_id).find(revision)
        if commit is None:
            raise _Answer(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # HTTP

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        length = int(self.headers.get("Content-Length", 0))
        data = self.rfile.read(length)
        self._read = True
        if len(data) < length:
            raise _Answer(400, message="the body is cut short")
        return data

    _read = False

    def _drain(self) -> None:
        """Read what the client sends, so that it hears the answer; the connection is not used again."""
        if not self._read:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.close_connection = True

    def _send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        self._reply(status, json.dumps(content).encode(), "application/json", headers or {})

    def _reply(self, status: int, data: bytes, kind: str, headers: dict[str, str]) -> None:
        self._read = False
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""
