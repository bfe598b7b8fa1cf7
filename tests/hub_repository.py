"""A repository of the stub Hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

# Smaller files travel within the commit, as on the Hub, unless they are of a kind that never does.
_LFS_BYTES = 10_000
_LFS_ENDINGS = (".safetensors", ".arrow", ".parquet", ".png")


@dataclass
class Repo:
    """A repository: commit -> path -> content, and name (branch, tag or refs/pr/N) -> commit."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def commit(self, name: str, files: dict[str, bytes], message: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}{message}".encode()).hexdigest()
        self.commits[sha], self.names[name] = files, sha
        self.messages.append(message)
        return sha

    def sha(self, revision: str = "main") -> str:
        return self.names.get(revision) or revision

    def files(self, revision: str = "main") -> dict[str, bytes] | None:
        return self.commits.get(self.sha(revision))


def travels_apart(path: str, size: int) -> bool:
    """Whether a file is uploaded before the commit."""
    return size > _LFS_BYTES or path.endswith(_LFS_ENDINGS)


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, content: bytes) -> dict:
    found = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
    if travels_apart(path, len(content)):
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return found
