"""Publishing MSAEs on the Hub: all of a release in one commit, after it was loaded back, or nothing."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub import HfApi, constants

from .committing import commit
from .index import check_subfolder
from .published import Published
from .remote import check_before_work, check_repo_id, require_repository
from .staging import StagedModel, find_models, stage_model, temporary_folder

if TYPE_CHECKING:
    import pandas as pd

    from ...model.modeling_msae import MSAEModel


@dataclass(frozen=True)
class ReleasedFile:
    """A file of a release: its path in the repository, its size in bytes, and whether it had to be sent."""

    path: str
    size: int
    sent: bool


@dataclass(frozen=True)
class Release:
    """What was published.

    Attributes:
        repo_id: the repository.
        url: its page, or that of the pull request.
        revision: the branch.
        commit: the commit that holds the files; None for a dry run.
        files: all files of the release.
        deleted: files of earlier releases that this one has not any more.
        subfolders: the models; ("",) for one at the root.
        pull_request: address of the pull request, where one was opened.
        answer_lost: the Hub's answer to the commit never came; the commit was found there.
        folder: where a dry run has written the files; None otherwise.
        replaced: subfolders whose model was there before with other weights -> the commit that holds those.
    """

    repo_id: str
    url: str
    revision: str
    commit: str | None
    files: tuple[ReleasedFile, ...]
    deleted: tuple[str, ...] = ()
    subfolders: tuple[str, ...] = ("",)
    pull_request: str | None = None
    answer_lost: bool = False
    folder: str | None = None
    replaced: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(each.size for each in self.files)

    @property
    def loading_arguments(self) -> str:
        """What `AutoModel.from_pretrained` takes to load it, as it is written in Python."""
        if self.folder is not None:
            words = [json.dumps(self.folder)]
        else:
            revision = f"refs/pr/{self.pull_request.rsplit('/', 1)[-1]}" if self.pull_request else self.revision
            words = [json.dumps(self.repo_id)] + ([] if revision == "main" else [f"revision={json.dumps(revision)}"])
        return ", ".join(words + ([f"subfolder={json.dumps(self.subfolders[0])}"] if self.subfolders[0] else []))

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return json.loads(json.dumps(asdict(self)))

    def to_pandas(self) -> pd.DataFrame:
        """One row per file: path, size, sent."""
        import pandas as pd

        return pd.DataFrame([asdict(each) for each in self.files], columns=["path", "size", "sent"])

    def __str__(self) -> str:
        width = max((len(each.path) for each in self.files), default=0)
        lines = [
            f"  {each.path:<{width}}  {_size(each.size):>9}" + ("" if each.sent else "  (is there already)")
            for each in self.files
        ]
        lines += [f"  {path:<{width}}  deleted" for path in self.deleted]
        count = f"{len(self.files)} files, {_size(self.num_bytes)}"
        if self.folder is not None:
            head = f"{count}, would be sent to {self.repo_id} ({self.revision}); they are in {self.folder}"
        elif not self.deleted and not self.answer_lost and not any(each.sent for each in self.files):
            head = f"{self.url} has all of it already: {count}, commit {self.commit}"
        elif self.pull_request is not None:
            head = f"{count}, as a pull request: {self.pull_request}"
        else:
            head = f"{count}, in commit {self.commit} of {self.revision}: {self.url}"
        for name, before in self.replaced.items():
            what = f"the MSAE that was in {name}" if name else "the MSAE that was there"
            lines.append(f"It replaces {what}, which commit {before} still has.")
        if self.answer_lost:
            lines.append("The Hub's answer to the commit was lost on the way; it was made, and is there.")
        return "\n".join([head, *lines])


def push_to_hub(
    model_or_folder: MSAEModel | str | os.PathLike,
    repo_id: str,
    *,
    run_dir: str | os.PathLike | None = None,
    subfolder: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    allow_unmeasured: bool = False,
    remote_code: bool = False,
    license: str | None = None,
    tags: str | Sequence[str] | None = None,
    card: Literal["local", "hub", "fresh"] | None = None,
    max_shard_size: str | int | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    commit_description: str | None = None,
    dry_run: str | os.PathLike | None = None,
) -> Release:
    """Publish an MSAE with its metrics, names, figures and card, in one commit.

    Before the Hub is asked for anything, the files are put together in a folder of their own and loaded back from
    there. Paths of this machine are left out. What an earlier release has put there and this one has not (weights in
    other shards, tables in concepts/, figures the card shows no more) is deleted in the same commit, as far as it is
    still what was sent (`msae_files.json` there says so); other files stay. An MSAE that is there is replaced; a model
    of another kind never. A commit that fails leaves the branch as it was.

    The figure of quality against k, where the run has one, is drawn anew from metrics.json.

    A folder without a model of its own, but with models in its folders (a sweep, or one for each hook point), is
    published as a whole, each in its subfolder. A repository of subfolders has `msae_index.json` and a card of them
    all at its root. It holds either one model at its root, or models in subfolders.

    What people have edited in a card stays: in the README.md of the run, or on the Hub.

    Args:
        model_or_folder: a model, or the folder of a run (or of several).
        repo_id: "user/name"; made if it is not there.
        run_dir: of a model in memory: the folder of its run, for everything but the weights.
        subfolder: where in the repository the model goes, e.g. "vision.layers.11"; None is its root.
        private: whether a repository that is made is private.
        revision: branch to commit to; made if it is not there.
        create_pr: open a pull request instead.
        allow_unmeasured: publish without metrics, or without those that do not say of which weights they are; the
            card then says so.
        remote_code: put modules beside the model with which `AutoModel.from_pretrained(repo_id,
            trust_remote_code=True)` loads it without this package.
        license: of the weights, as the Hub writes it, which beats what a card on the Hub says; None keeps what that
            says, and is apache-2.0 where there is none (of a converted model: nothing).
        tags: further tags for the card.
        card: where a card was edited in the run's folder and differently on the Hub, which edits to keep; "fresh"
            drops all edits.
        max_shard_size: cut the weights into files of this size, as in `save_pretrained`.
        token: by default the one that is logged in.
        commit_message, commit_description: of the commit.
        dry_run: a new folder; the files are written there, and nothing is sent or asked of the Hub.

    Returns:
        [`Release`].

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it was never measured, the metrics or names are another model's, something does not load back,
            the repository is no place for it, or a card was edited in two places.
        PermissionError: nobody is logged in, or may not write there.
        ConnectionError: the Hub cannot be reached, or fails again and again; says what has become of the release.
    """
    check_repo_id(repo_id)
    if card not in (None, "local", "hub", "fresh"):
        raise ValueError(f"card is {card!r}, but can be local, hub or fresh")
    sources, run_dir = _sources(model_or_folder, run_dir, subfolder)
    if dry_run is None:
        check_before_work(repo_id, token)
    with _place(dry_run) as place:
        options = {"allow_unmeasured": allow_unmeasured, "remote_code": remote_code, "license": license}
        options |= {"tags": [tags] if isinstance(tags, str) else tags, "max_shard_size": max_shard_size}
        options["revision"] = revision
        staged = [
            stage_model(source, place / name, repo_id, subfolder=name, run_dir=run_dir, **options)
            for name, source in sources.items()
        ]
        publication = Published(repo_id, revision or "main", staged, card, license)
        if dry_run is not None:
            return _describe_dry_run(publication, place, Path(dry_run))
        api = HfApi(token=token)
        require_repository(api, repo_id, private, branch=None if create_pr else revision)
        committed = commit(
            api,
            repo_id,
            publication.plan,
            commit_message or _message(staged),
            commit_description,
            revision=revision,
            create_pr=create_pr,
        )
        if not create_pr:
            publication.remember(committed.changes)
        files = [
            ReleasedFile(path, content.size, path in committed.sent)
            for path, content in committed.changes.files.items()
        ]
    url = f"{api.endpoint}/{repo_id}" + (f"/tree/{revision}" if revision not in (None, "main") else "")
    return Release(
        repo_id=repo_id,
        url=committed.pull_request or url,
        revision=revision or "main",
        commit=committed.commit,
        files=tuple(files),
        deleted=committed.deleted,
        subfolders=tuple(sources),
        pull_request=committed.pull_request,
        answer_lost=committed.answer_lost,
        replaced=dict(publication.replaced),
    )


def _sources(
    model_or_folder: Any, run_dir: str | os.PathLike | None, subfolder: str | None
) -> tuple[dict[str, Any], Path | None]:
    """Subfolder -> model or folder, and the run of a model in memory."""
    subfolder = "" if subfolder is None else check_subfolder(subfolder)
    if not isinstance(model_or_folder, (str, os.PathLike)):
        if run_dir is not None and not Path(run_dir).expanduser().is_dir():
            raise FileNotFoundError(f"there is no folder {run_dir}, which run_dir names")
        return {subfolder: model_or_folder}, None if run_dir is None else Path(run_dir).expanduser()
    if run_dir is not None:
        raise ValueError(f"run_dir={run_dir} is for a model in memory; of the folder {model_or_folder} all is taken")
    found = find_models(Path(model_or_folder).expanduser())
    return {check_subfolder(f"{subfolder}/{name}") if subfolder or name else "": p for name, p in found.items()}, None


@contextmanager
def _place(dry_run: str | os.PathLike | None) -> Iterator[Path]:
    """Where files are put together: a folder that goes, or that of a dry run, which is there when it is complete."""
    if dry_run is None:
        with temporary_folder() as folder:
            yield Path(folder)
        return
    target = Path(dry_run).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is there already: name a new folder for the dry run")
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as place:  # a name nobody has
        unfinished = Path(place) / "release"
        unfinished.mkdir()
        yield unfinished
        os.replace(unfinished, target)


def _describe_dry_run(publication: Published, place: Path, target: Path) -> Release:
    changes = publication.plan(None)
    for path, content in changes.files.items():
        if isinstance(content.source, bytes):  # cards and the index; the others lie there already
            (place / path).write_bytes(content.source)
    return Release(
        repo_id=publication.repo_id,
        url=f"{constants.ENDPOINT}/{publication.repo_id}",
        revision=publication.branch,
        commit=None,
        files=tuple(ReleasedFile(path, content.size, True) for path, content in changes.files.items()),
        subfolders=tuple(each.subfolder for each in publication.staged),
        folder=str(target),
    )


def _message(staged: Sequence[StagedModel]) -> str:
    names = [each.subfolder for each in staged if each.subfolder]
    if not names:
        return "Upload MSAE"
    return f"Upload {len(names)} MSAEs: {', '.join(names)}" if len(names) > 1 else f"Upload MSAE {names[0]}"


def _size(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
