"""A Hub on 127.0.0.1 for tests: it speaks the protocol of huggingface_hub, and keeps everything in memory.

The fixture `at_hub` sends huggingface_hub of this process to it; other processes find it by `StubHub.environment`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import ThreadingHTTPServer

from tests.hub_faults import Fault, FaultyHandler
from tests.hub_repository import Repo, entry, git_sha1, travels_apart

USER, TOKEN = "tester", "hf_dummy"
OTHER_TOKEN, READ_TOKEN = "hf_somebody_else", "hf_read_only"
_USERS = {TOKEN: (USER, "write"), READ_TOKEN: (USER, "read"), OTHER_TOKEN: ("somebody", "write")}
_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


class StubHub:
    """The server, a context manager.

    Attributes:
        repos: ("model" | "dataset" | "space", id) -> Repo.
        requests: "METHOD path" of all requests.
        faults: What fails; see `Fault`.
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()

        class Handler(_Handler):
            hub, routes = self, _ROUTES

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> StubHub:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method: str, pattern: str, **what: object) -> Fault:
        """Order a fault."""
        self.faults.append(Fault(method, pattern, **what))
        return self.faults[-1]

    def environment(self, home: object) -> dict[str, str]:
        """Environment variables of a process that talks to this Hub, with its caches in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
        }


class _Handler(FaultyHandler):
    hub: StubHub

    @property
    def _user(self) -> tuple[str, str] | None:
        """Name and role of the user who sends the request."""
        return _USERS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _may_write(self, name: str) -> bool:
        return self._user is not None and self._user == (name.split("/")[0], "write")

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and (self._user is None or self._user[0] != name.split("/")[0])):
            self._missing("RepoNotFound")
            return None
        return repo

    def _files(self, kind: str, name: str, revision: str) -> tuple[Repo, dict[str, bytes]] | None:
        """A repository and its files; None after answering that there are none."""
        repo = self._repo(kind, name)
        if repo is not None and repo.files(revision) is None:
            self._missing("RevisionNotFound")
        return None if repo is None or repo.files(revision) is None else (repo, repo.files(revision))

    # -- what can be asked -------------------------------------------------------------------------------------

    def create(self) -> None:
        if self._user is None:
            return self._answer(401, {"error": "Invalid username or password."})
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or self._user[0]}/{asked['name']}"
        if not self._may_write(name):
            return self._forbidden(f"You don't have the rights to create a repo under {name.split('/')[0]}")
        key = (asked.get("type") or "model", name)
        there = key in self.hub.repos
        if not there:
            repo = self.hub.repos[key] = Repo(
                private=bool(asked.get("private")) or asked.get("visibility") == "private"
            )
            repo.commit("main", {".gitattributes": b""}, "initial commit")
        self._answer(409 if there else 200, {"url": f"{self.hub.url}/{_prefix(key[0])}{name}", "id": name})

    def variable(self, kind: str, name: str) -> None:
        repo = self._repo(_KINDS[kind], name)
        if repo is None:
            return
        if self.command != "GET" and not self._may_write(name):
            return self._forbidden("You don't have the rights to set variables")
        if self.command == "POST":
            asked = json.loads(self.body)
            repo.variables[asked["key"]] = asked["value"]
        elif self.command == "DELETE":
            repo.variables.pop(json.loads(self.body)["key"], None)
        self._answer(200, {key: {"value": value} for key, value in repo.variables.items()})

    def branch(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(_KINDS[kind], name)
        if repo is None:
            return
        if not self._may_write(name):
            return self._forbidden("no write access")
        if revision in repo.names:
            return self._answer(409, {"error": f"{revision} is there already"})
        repo.names[revision] = repo.sha(json.loads(self.body or b"{}").get("startingPoint", "main"))
        self._answer(200, {})

    def validate(self) -> None:
        self._answer(200, {"errors": [], "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(_KINDS[kind], name)
        if repo is None or not self._may_commit(repo, name, revision):
            return
        there, files = repo.files(revision), []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            large = travels_apart(path, file["size"])
            entry = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if path in there:
                entry["oid"] = hashlib.sha256(there[path]).hexdigest() if large else git_sha1(there[path])
            files.append(entry)
        self._answer(200, {"files": files})

    def _may_commit(self, repo: Repo, name: str, revision: str) -> bool:
        """Whether the user may commit; otherwise answers with the error."""
        if revision not in repo.names:
            self._missing("RevisionNotFound")
        elif self._user is None:
            self._answer(401, {"error": "Invalid username or password."})
        elif not self._may_write(name) and not self._creates_pull_request:
            self._forbidden("no write access; you may open a pull request")
        else:
            return True
        return False

    @property
    def _creates_pull_request(self) -> bool:
        return self.query.get("create_pr") == ["1"]

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
        with self.hub.lock:
            self._commit(_KINDS[kind], name, revision)

    def _commit(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name)
        if repo is None or not self._may_commit(repo, name, revision):
            return
        files, message = dict(repo.files(revision)), ""
        for line in filter(None, self.body.splitlines()):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
                parent = value.get("parentCommit")
                if parent and parent != repo.names[revision]:
                    return self._answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self._answer(400, {"error": f"{value['path']} was not uploaded"})
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    return self._missing("EntryNotFound")
        page, answer = f"{self.hub.url}/{_prefix(kind)}{name}", {}
        if self._creates_pull_request:
            number = 1 + sum(each.startswith("refs/pr/") for each in repo.names)
            revision, answer = f"refs/pr/{number}", {"pullRequestUrl": f"{page}/discussions/{number}"}
        sha = repo.commit(revision, files, message)
        self._answer(200, {"success": True, "commitOid": sha, "commitUrl": f"{page}/commit/{sha}", **answer})

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        found = self._files(_KINDS[kind], name, revision)
        if found is None:
            return
        repo, files = found
        self._answer(
            200,
            {
                "id": name, "_id": name, "sha": repo.sha(revision), "private": repo.private,
                "tags": [], "downloads": 0, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": path} for path in sorted(files)],
            },
        )  # fmt: skip

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
                found.append(entry(path, content))
        self._answer(200, found + [{"type": "directory", "path": each, "oid": "0", "size": 0} for each in folders])

    def resolve(self, kind: str | None, name: str, revision: str, file: str) -> None:
        repo = self._repo(_KINDS[(kind or "").strip("/") or "models"], name)
        if repo is None:
            return
        files = repo.files(revision)
        if files is None:
            return self._missing("RevisionNotFound")
        sha = repo.sha(revision)
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


_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
_REVISION = r"/(?P<revision>[^/]+)"
_ROUTES = [
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("POST", rf"{_API}/preupload{_REVISION}", _Handler.preupload),
    ("POST", rf"{_API}/commit{_REVISION}", _Handler.commit),
    ("POST", rf"{_API}/branch{_REVISION}", _Handler.branch),
    (("GET", "POST", "DELETE"), rf"{_API}/variables", _Handler.variable),
    ("GET", _API, _Handler.info),
    ("GET", rf"{_API}/revision{_REVISION}", _Handler.info),
    ("GET", rf"{_API}/tree{_REVISION}(?P<folder>/.*)?", _Handler.tree),
    ("POST", r"(?:/datasets|/spaces)?/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    (
        ("GET", "HEAD"),
        rf"(?P<kind>/datasets|/spaces)?/(?P<name>[^/]+/[^/]+)/resolve{_REVISION}/(?P<file>.+)",
        _Handler.resolve,
    ),
]
