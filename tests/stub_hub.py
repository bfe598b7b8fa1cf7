"""A Hub on 127.0.0.1 for tests: it speaks the protocol that huggingface_hub speaks, and keeps everything in memory.

`huggingface_hub` reads its address when it is imported, so what talks to it runs in a process of its own, with
`StubHub.environment`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

USER, TOKEN = "tester", "hf_dummy"
_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
# Smaller files travel within the commit, as on the Hub, unless they are of a kind that never does.
_LFS_BYTES = 10_000
_LFS_ENDINGS = (".safetensors", ".arrow", ".parquet", ".png")


@dataclass
class Repo:
    """A repository: commit -> path -> content, and what its names stand for."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def commit(self, name: str, files: dict[str, bytes], message: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}{message}".encode()).hexdigest()
        self.commits[sha], self.names[name] = files, sha
        self.messages.append(message)
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes] | None:
        return self.commits.get(self.names.get(revision, revision))


class StubHub:
    """The server; use it in a `with`.

    Attributes:
        repos: ("model" | "dataset" | "space", id) -> Repo.
        requests: "METHOD path" of everything that was asked.
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []

        class Handler(_Handler):
            hub = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> StubHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: object) -> dict[str, str]:
        """Variables for a process that is to talk to this Hub, with its caches in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
        }


class _Handler(BaseHTTPRequestHandler):
    hub: StubHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self._route("GET")

    def do_HEAD(self) -> None:
        self._route("HEAD")

    def do_POST(self) -> None:
        self._route("POST")

    def do_PUT(self) -> None:
        self._route("PUT")

    def _route(self, method: str) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        self.query = parse_qs(address.query)
        path = unquote(address.path)
        self.hub.requests.append(f"{method} {path}")
        for of_method, pattern, action in _ROUTES:
            if (found := re.fullmatch(pattern, path)) and method in of_method:
                return action(self, **found.groupdict())
        self._answer(404, {"error": f"the stub has no {method} {path}"})

    def _answer(self, status: int, content: object = None, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, what: str) -> None:
        self._answer(404, {"error": what}, {"X-Error-Code": what, "X-Error-Message": what})

    @property
    def _is_user(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and not self._is_user):
            self._missing("RepoNotFound")
            return None
        return repo

    def _files(self, kind: str, name: str, revision: str) -> tuple[Repo, dict[str, bytes]] | None:
        """A repository and its files; None where the answer has been given that there are none."""
        repo = self._repo(kind, name)
        if repo is not None and repo.files(revision) is None:
            self._missing("RevisionNotFound")
        return None if repo is None or repo.files(revision) is None else (repo, repo.files(revision))

    # -- what can be asked -------------------------------------------------------------------------------------

    def whoami(self) -> None:
        if not self._is_user:
            return self._answer(401, {"error": "Invalid username or password."})
        self._answer(200, {"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self) -> None:
        if not self._is_user:
            return self._answer(401, {"error": "Invalid username or password."})
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        key = (asked.get("type") or "model", name)
        there = key in self.hub.repos
        if not there:
            repo = self.hub.repos[key] = Repo(
                private=bool(asked.get("private")) or asked.get("visibility") == "private"
            )
            repo.commit("main", {".gitattributes": b""}, "initial commit")
        self._answer(409 if there else 200, {"url": f"{self.hub.url}/{_prefix(key[0])}{name}", "id": name})

    def validate(self) -> None:
        self._answer(200, {"errors": [], "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        if self._repo(_KINDS[kind], name) is None:
            return
        files = []
        for file in json.loads(self.body)["files"]:
            large = file["size"] > _LFS_BYTES or file["path"].endswith(_LFS_ENDINGS)
            files.append({"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False})
        self._answer(200, {"files": files})

    def batch(self, name: str, **_: str) -> None:
        objects = []
        for each in json.loads(self.body)["objects"]:
            if each["oid"] not in self.hub.objects:  # what is there already has nothing to be done
                each["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}
            objects.append(each)
        self._answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._answer(400, {"error": "the content is not what its name says"})
        self.hub.objects[oid] = self.body
        self._answer(200, {})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(_KINDS[kind], name)
        if repo is None:
            return
        if not self._is_user:
            return self._answer(403, {"error": "no write access"})
        files, message = dict(repo.files(revision) or {}), ""
        for line in filter(None, self.body.splitlines()):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
                parent = value.get("parentCommit")
                if parent and parent != repo.names.get(revision):
                    return self._answer(412, {"error": "A commit has happened since."})
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self._answer(400, {"error": f"{value['path']} was not uploaded"})
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = repo.commit(revision, files, message)
        url = f"{self.hub.url}/{_prefix(_KINDS[kind])}{name}/commit/{sha}"
        self._answer(200, {"success": True, "commitOid": sha, "commitUrl": url})

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        found = self._files(_KINDS[kind], name, revision)
        if found is None:
            return
        repo, files = found
        self._answer(
            200,
            {
                "id": name, "_id": name, "sha": repo.names.get(revision, revision), "private": repo.private,
                "tags": [], "downloads": 0, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": path} for path in sorted(files)],
            },
        )  # fmt: skip

    def refs(self, kind: str, name: str) -> None:
        repo = self._repo(_KINDS[kind], name)
        if repo is not None:
            branches = [
                {"name": each, "ref": f"refs/heads/{each}", "targetCommit": sha} for each, sha in repo.names.items()
            ]
            self._answer(200, {"branches": branches, "tags": [], "converts": []})

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        found = self._files(_KINDS[kind], name, revision)
        if found is None:
            return
        _, files = found
        folder = folder or ""
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        inside = {path: content for path, content in files.items() if path.startswith(prefix)}
        if prefix and not inside:
            return self._missing("EntryNotFound")
        found, folders = [], set()
        for path, content in sorted(inside.items()):
            head, _, rest = path.removeprefix(prefix).partition("/")
            if rest and self.query.get("recursive", ["false"])[0].lower() != "true":
                folders.add(prefix + head)
            else:
                found.append(_entry(path, content))
        self._answer(200, found + [{"type": "directory", "path": each, "oid": "0", "size": 0} for each in folders])

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(_KINDS[kind], name)
        if repo is None:
            return
        files = repo.files(revision) or {}
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode())["paths"]
        self._answer(200, [_entry(path, files[path]) for path in paths if path in files])

    def resolve(self, kind: str | None, name: str, revision: str, file: str) -> None:
        repo = self._repo(_KINDS[(kind or "").strip("/") or "models"], name)
        if repo is None:
            return
        files = repo.files(revision)
        if files is None:
            return self._missing("RevisionNotFound")
        sha = repo.names.get(revision, revision)
        if file not in files:
            return self._answer(
                404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
            )
        content = files[file]
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Content-Type": "application/octet-stream"}
        headers |= {"Accept-Ranges": "bytes", "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        if (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))) and self.command == "GET":
            first, last = int(asked[1]), int(asked[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self._answer(206, content[first : last + 1], headers)
        self._answer(200, content, headers)


def _prefix(kind: str) -> str:
    return "" if kind == "model" else f"{kind}s/"


def _entry(path: str, content: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if path.endswith(_LFS_ENDINGS) or len(content) > _LFS_BYTES:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
_REVISION = r"/(?P<revision>[^/]+)"
_ROUTES = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("POST", rf"{_API}/preupload{_REVISION}", _Handler.preupload),
    ("POST", rf"{_API}/commit{_REVISION}", _Handler.commit),
    ("POST", rf"{_API}/paths-info{_REVISION}", _Handler.paths_info),
    ("GET", _API, _Handler.info),
    ("GET", rf"{_API}/revision{_REVISION}", _Handler.info),
    ("GET", rf"{_API}/refs", _Handler.refs),
    ("GET", rf"{_API}/tree{_REVISION}(?P<folder>/.*)?", _Handler.tree),
    ("POST", r"(?:/datasets|/spaces)?/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    (
        ("GET", "HEAD"),
        rf"(?P<kind>/datasets|/spaces)?/(?P<name>[^/]+/[^/]+)/resolve{_REVISION}/(?P<file>.+)",
        _Handler.resolve,
    ),
]
