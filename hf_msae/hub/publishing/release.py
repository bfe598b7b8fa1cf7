"""Publishing MSAEs on the Hub: a whole release in one commit, loaded back first, or nothing."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from tqdm import tqdm

from ..._utils.atomic import atomic_path, make_folder
from ..._utils.deprecation import warn_renamed
from .index import check_subfolder
from .release_plan import ReleasePlan
from .repository import Committed, Repository, Snapshot
from .staging import find_models, stage_model

if TYPE_CHECKING:
    import pandas as pd

    from ...model.modeling_msae import MSAEModel


@dataclass(frozen=True)
class ReleasedFile:
    """A file of a release: its path in the repository, its size in bytes, and whether it was sent."""

    path: str
    size: int
    sent: bool


@dataclass(frozen=True)
class Release:
    """What was published.

    Attributes:
        repo_id: The repository.
        url: Its page, or that of the pull request.
        revision: The branch.
        commit: The commit that holds the files; None for a dry run.
        files: All files of the release.
        deleted: Files of earlier releases that were deleted.
        subfolders: The models; ("",) for one at the root.
        pull_request: Address of the pull request, if one was opened.
        answer_lost: Whether the Hub's answer was lost and the commit was found there.
        folder: Where a dry run has written the files; None otherwise.
        replaced: Subfolder of each model that was there with other weights -> the commit that holds it.
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

    @classmethod
    def of(cls, repository: Repository, committed: Committed, revision: str | None, **more: Any) -> Release:
        """Describe a commit to a repository; `more` are further fields."""
        added = [each for each in committed.operations if isinstance(each, CommitOperationAdd)]
        sent = committed.paths(CommitOperationAdd)
        return cls(
            repo_id=repository.repo_id,
            url=committed.pull_request or repository.url(revision),
            revision=revision or "main",
            commit=committed.commit,
            files=tuple(
                ReleasedFile(each.path_in_repo, each.upload_info.size, each.path_in_repo in sent) for each in added
            ),
            deleted=committed.paths(CommitOperationDelete),
            pull_request=committed.pull_request,
            answer_lost=committed.answer_lost,
            **more,
        )

    @property
    def sent(self) -> tuple[str, ...]:
        """Paths of the files that were sent; empty if everything was there."""
        return tuple(each.path for each in self.files if each.sent)

    @property
    def num_bytes(self) -> int:
        """Total size of the files."""
        return sum(each.size for each in self.files)

    @property
    def loading_arguments(self) -> str:
        """Arguments with which `AutoModel.from_pretrained` loads it, as Python code."""
        revision = f"refs/pr/{self.pull_request.rsplit('/', 1)[-1]}" if self.pull_request else self.revision
        words = [json.dumps(self.folder or self.repo_id)]
        words += [f"revision={json.dumps(revision)}"] if not self.folder and revision != "main" else []
        words += [f"subfolder={json.dumps(self.subfolders[0])}"] if self.subfolders[0] else []
        return ", ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types."""
        return json.loads(json.dumps(asdict(self)))

    def to_pandas(self) -> pd.DataFrame:
        """One row per file: path, size, sent."""
        import pandas as pd

        return pd.DataFrame([asdict(each) for each in self.files], columns=["path", "size", "sent"])

    def __str__(self) -> str:
        count = f"{len(self.files)} files, {tqdm.format_sizeof(self.num_bytes)}B"
        if self.folder is not None:
            head = f"{count} for {self.repo_id} ({self.revision}), written to {self.folder}; nothing was sent"
        elif not self.sent and not self.deleted and not self.answer_lost:
            head = f"{self.url} already has everything: {count}, commit {self.commit}"
        elif self.pull_request is not None:
            head = f"{count}, as a pull request: {self.pull_request}"
        else:
            head = f"{count}, in commit {self.commit} of {self.revision}: {self.url}"
        width = max((len(each.path) for each in self.files), default=0)
        lines = [
            f"  {each.path:<{width}}  {tqdm.format_sizeof(each.size):>8}B{'' if each.sent else '  (already there)'}"
            for each in self.files
        ]
        lines += [f"  {path:<{width}}  deleted" for path in self.deleted]
        for name, commit in self.replaced.items():
            what = f"the MSAE in {name}" if name else "an earlier MSAE"
            lines.append(f"It replaces {what}, which is still in commit {commit}.")
        if self.answer_lost:
            lines.append("The Hub's answer to the commit was lost, but the commit is there.")
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
    replace_card: bool = False,
    max_shard_size: str | int | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    commit_description: str | None = None,
    dry_run: str | os.PathLike | None = None,
    card: str | None = None,
) -> Release:
    """Publish an MSAE with its metrics, names, figures and card, in one commit.

    Before anything is sent, the files are put together in a new folder and loaded back from there. Paths of this
    machine are left out, and the figure of quality against k is drawn anew. Files of earlier releases that this one
    lacks are deleted in the same commit if they are unchanged (`msae_files.json` lists them); other files stay. An
    MSAE that is there is replaced, a model of another kind never. A failed commit leaves the branch as it was.

    A folder without a model of its own but with models in its subfolders (a sweep, for example) is published as a
    whole, each model in its subfolder, with `msae_index.json` and a card of them all at the root.

    A card that a person has edited, in the run's README.md or on the Hub, keeps its text; its metadata and
    model-index are updated.

    Args:
        model_or_folder: A model, or the folder of one or several runs.
        repo_id: Repository, "user/name"; created if it does not exist.
        run_dir: For a model in memory, the folder of its run, for everything but the weights.
        subfolder: Folder in the repository, for example "vision.layers.11". Defaults to its root.
        private: Whether a new repository is private.
        revision: Branch to commit to; created if it does not exist.
        create_pr: Open a pull request instead.
        allow_unmeasured: Publish without metrics, or without those that do not say to which weights they belong; the
            card then says so.
        remote_code: Add modules with which `AutoModel.from_pretrained(repo_id, trust_remote_code=True)` loads the
            model without this package.
        license: License of the weights, as the Hub writes it. Defaults to that of the existing card, or to apache-2.0
            (for a converted model: none).
        tags: More tags for the card.
        replace_card: Replace cards that people have edited.
        max_shard_size: Maximum size of a file of weights, as in `save_pretrained`.
        token: Token of the Hub. Defaults to the one that is logged in.
        commit_message: First line of the commit's message.
        commit_description: The rest of the message.
        dry_run: New folder to write the files to; nothing is sent, and the Hub is not asked.
        card: Deprecated; "fresh" is `replace_card=True`.

    Returns:
        [`Release`].

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The model was not measured, the metrics or names belong to another model, something does not load
            back, the repository is no place for it, or a card was edited in two places.
        PermissionError: Not logged in, or no permission to write.
        ConnectionError: The Hub cannot be reached or keeps failing; says what became of the release.
    """
    if card is not None:
        if card != "fresh":
            raise ValueError(f"card={card!r} is no longer an option: edited cards are kept unless replace_card=True")
        warn_renamed('push_to_hub(card="fresh")', "replace_card=True")
        replace_card = True
    repository = Repository(repo_id, token=token)
    sources, run_dir = _sources(model_or_folder, run_dir, subfolder)
    if dry_run is None:
        repository.check_access()
    with _place(dry_run) as place:
        staged = [
            stage_model(
                source,
                place / name,
                repo_id,
                subfolder=name,
                run_dir=run_dir,
                allow_unmeasured=allow_unmeasured,
                remote_code=remote_code,
                license=license,
                tags=[tags] if isinstance(tags, str) else tags or (),
                max_shard_size=max_shard_size,
                revision=revision,
            )
            for name, source in sources.items()
        ]
        plan = ReleasePlan(repo_id, revision or "main", staged, license, replace_card)
        if dry_run is not None:
            operations = plan.operations(Snapshot())
            committed = Committed(None, operations, sent=operations)
            for each in operations:  # cards and indexes; the other files are there already
                if isinstance(each.path_or_fileobj, bytes):
                    (place / each.path_in_repo).write_bytes(each.path_or_fileobj)
        else:
            repository.create(private, branch=None if create_pr else revision)
            names = ", ".join(each.subfolder for each in staged)
            default = f"Upload {len(staged)} MSAEs: {names}" if len(staged) > 1 else f"Upload MSAE {names}".rstrip()
            message = commit_message or default
            committed = repository.commit(plan.operations, message, commit_description, revision, create_pr)
    return Release.of(
        repository,
        committed,
        revision,
        subfolders=tuple(sources),
        folder=None if dry_run is None else str(Path(dry_run).expanduser().absolute()),
        replaced=plan.replaced,
    )


def _sources(
    model_or_folder: Any, run_dir: str | os.PathLike | None, subfolder: str | None
) -> tuple[dict[str, Any], Path | None]:
    """The models (subfolder -> model or folder), and the run of a model in memory."""
    subfolder = "" if subfolder is None else check_subfolder(subfolder)
    if not isinstance(model_or_folder, (str, os.PathLike)):
        if run_dir is not None and not Path(run_dir).expanduser().is_dir():
            raise FileNotFoundError(f"run_dir={run_dir} is not a folder")
        return {subfolder: model_or_folder}, None if run_dir is None else Path(run_dir).expanduser()
    if run_dir is not None:
        raise ValueError(f"run_dir={run_dir} is for a model in memory, but {model_or_folder} is a folder")
    found = find_models(Path(model_or_folder).expanduser())
    return {check_subfolder(f"{subfolder}/{name}") if subfolder or name else "": p for name, p in found.items()}, None


@contextmanager
def _place(dry_run: str | os.PathLike | None) -> Iterator[Path]:
    """The folder to put files together in: a temporary one, or that of a dry run, which appears once it is whole."""
    if dry_run is None:
        with tempfile.TemporaryDirectory(prefix="hf_msae-release-") as folder:
            yield Path(folder)
        return
    target = Path(dry_run).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} already exists: choose a new folder for the dry run")
    make_folder(target.parent)
    with atomic_path(target) as unfinished:
        unfinished.mkdir()
        yield unfinished
