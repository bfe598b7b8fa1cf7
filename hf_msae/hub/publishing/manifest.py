"""msae_files.json: which files of a repository earlier releases have put there, so that no other is ever deleted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set

from .remote import Content, RemoteState
from .staging import CARD, WEIGHTS, StagedModel

MANIFEST = "msae_files.json"
FORMAT_VERSION = 1


def write_manifest(model: StagedModel, files: Mapping[str, Content]) -> bytes:
    """The content of msae_files.json: path within the model's folder -> SHA-256 of what was sent; without the card,
    which is people's too.

    Args:
        model: that is released.
        files: path in the repository -> content, of this model alone.
    """
    prefix = model.path_in_repo("")
    sent = {path.removeprefix(prefix): content.sha256 for path, content in sorted(files.items())}
    sent.pop(CARD, None)
    return (json.dumps({"format_version": FORMAT_VERSION, "files": sent}, indent=2) + "\n").encode()


def stale_files(state: RemoteState | None, model: StagedModel, own: Set[str], shown: Set[str]) -> list[str]:
    """What an earlier release of a model has put into the repository, and this one has not any more.

    Args:
        state: what the repository holds; None for an empty one.
        model: that is released.
        own: paths of its files.
        shown: pictures on its card, relative to it: these stay.

    Returns:
        Paths of files that lie there just as they were sent. What somebody else has put there, or put in the place of
        one of ours, is not among them.

    Raises:
        ValueError: msae_files.json there is damaged; or weights lie there that no release has sent, so that what is
            loaded could be a mixture.
    """
    if state is None:
        return []
    sent = _read(state, model)
    candidates = {model.path_in_repo(name): digest for name, digest in sent.items() if name not in shown}
    gone = [path for path in sorted(set(candidates) - own) if state.holds_sha256(path, candidates[path])]
    weights = {path for path in state.files if is_weights(model, path)}
    foreign = sorted(weights - own - set(gone))
    if foreign:
        raise ValueError(
            f"{state.repo_id} holds {foreign[0]}, which no release by hf_msae has put there, and which could be "
            "loaded in place of the new weights: delete it on the Hub if it is not needed, or push elsewhere"
        )
    return gone


def is_weights(model: StagedModel, path: str) -> bool:
    """Whether a file of the repository is one that weights of this model can be loaded from."""
    prefix = model.path_in_repo("")
    return path.startswith(prefix) and WEIGHTS.fullmatch(path.removeprefix(prefix)) is not None


def _read(state: RemoteState, model: StagedModel) -> dict[str, str]:
    path = model.path_in_repo(MANIFEST)
    text = state.read(path)
    if text is None:
        return {}
    try:
        content = json.loads(text)
        version, files = content["format_version"], content["files"]
        if not all(isinstance(each, str) for item in files.items() for each in item):
            raise TypeError("files is no mapping of paths to digests")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} of {state.repo_id} is damaged ({error!r}): mend or delete it on the Hub") from error
    if version > FORMAT_VERSION:
        raise ValueError(f"{path} of {state.repo_id} was written by a newer hf_msae (format {version}): install that")
    return files
