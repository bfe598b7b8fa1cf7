"""The concept explorer as a Space on the Hub, showing your model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import requires
from pathlib import Path

from huggingface_hub import CommitOperation, CommitOperationAdd, RepoCard

from ..._utils.built_in import find_built_in
from ...metrics.measured_data import is_hub_id
from ..reading.registry import find_released
from .repository import HUB_ERRORS, Repository, Snapshot, first_line, patiently, status_of
from .sent_files import additions, manifest, read_manifest, refuse_foreign_links, stale_files
from .space_settings import DEFAULT_DATASETS, ExplorerSettings

_PACKAGE = Path(__file__).parents[2]
_APP = Path(__file__).parents[3] / "spaces" / "concept-explorer"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
_OF_NEW_SPACES = {"README.md", ".gitattributes"}
"""Files that the Hub itself puts into a Space."""
_OWN_FOLDERS = ("edits", "swordbench")
"""Settings that name folders among a Space's files: a push sends neither these nor their variables."""
_TORCH_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


def app_folder() -> Path:
    """The Space's own files: next to this file in an installed package, in spaces/ in a checkout."""
    installed = Path(__file__).with_name("concept-explorer")
    return installed if installed.is_dir() else _APP


def write_space(
    folder: Path, settings: ExplorerSettings, title: str | None = None, requirement: str | None = None
) -> Path:
    """Write the files of the Space to a folder, which is created if it does not exist, and return it.

    Without a `requirement` (how the Space installs hf_msae, for example "hf_msae==0.1.0"), the package is sent along,
    which works whether or not it is on an index.
    """
    for source in (app_folder(), *([_PACKAGE] if requirement is None else [])):
        refuse_foreign_links(source, (path.relative_to(source) for path in source.rglob("*") if path.is_symlink()))
    shutil.copytree(app_folder(), folder, dirs_exist_ok=True, ignore=_LEFT_OUT)
    lines = [_TORCH_INDEX]
    if requirement is None:
        shutil.copytree(_PACKAGE, folder / "hf_msae", ignore=_LEFT_OUT)
        # Without extras: gradio comes with the Space.
        lines += [each for each in requires("hf_msae") if "extra ==" not in each]
    else:
        lines.append(requirement)
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    card = RepoCard.load(folder / "README.md")
    if title is not None:
        card.data.title = title
        card.text = card.text.replace("# Concept Explorer", f"# {title}", 1)
    for key, names in (
        ("models", (settings.model, settings.patch_model)),
        ("datasets", (settings.dataset, settings.embeddings)),
    ):
        if on_hub := [name for name in names if is_hub_id(name)]:
            card.data[key] = on_hub
    card.save(folder / "README.md")
    return folder


def push_space(
    repo_id: str,
    settings: ExplorerSettings,
    title: str | None = None,
    requirement: str | None = None,
    private: bool = False,
    token: str | None = None,
    overwrite: bool = False,
) -> str:
    """Create or update a Space in one commit, and return its address; its variables say what it shows.

    `msae_files.json` in the Space lists the files that were sent. Those that are no longer needed are deleted; other
    files are neither deleted nor, unless `overwrite` is set, replaced. The Space cannot read this machine, so models
    and data in the settings have to be on the Hub or come with the package.
    """
    repository = Repository(repo_id, "space", token)
    variables = space_variables(settings)
    repository.check_access()
    with tempfile.TemporaryDirectory() as place:
        files = additions(write_space(Path(place) / "space", settings, title, requirement))
        listed = manifest(files)

        def plan(there: Snapshot) -> list[CommitOperation]:
            sent, _ = read_manifest(there, str(repository))
            if not overwrite:
                _check_nothing_in_the_way(there, files, sent, repository)
            return [*files.values(), listed, *stale_files(there, sent, set(files))]

        repository.create(private or None)
        repository.commit(plan, "Show concepts")
    _set_variables(repository, variables)
    return repository.url()


def _check_nothing_in_the_way(
    there: Snapshot, files: Mapping[str, CommitOperationAdd], sent: Mapping[str, str], repository: Repository
) -> None:
    """Raise ValueError if a push would replace what somebody else has added or edited."""
    if not sent and set(there.files) <= _OF_NEW_SPACES:
        return
    replaced = (each.path_in_repo for each in there.pending(list(files.values())) if each.path_in_repo in there.files)
    foreign = [path for path in replaced if not (path in sent and there.holds(path, sent[path]))]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise ValueError(
            f"{', '.join(sorted(foreign)[:3])}{more} of {repository} would be replaced, but were not sent by hf_msae: "
            "name another Space, or replace them with overwrite=True (--overwrite)"
        )


def _set_variables(repository: Repository, variables: Mapping[str, str]) -> None:
    """Set the variables of the Space, and delete those of an earlier push that would still have an effect."""
    api, space = repository.api, repository.repo_id
    try:
        there = patiently(api.get_space_variables, space)
        kept = {f"MSAE_{name.upper()}" for name in _OWN_FOLDERS}
        for key in there:
            if key.startswith("MSAE_") and key not in variables and key not in kept:
                patiently(api.delete_space_variable, space, key)
        for key, value in variables.items():
            if key not in there or there[key].value != value:  # every change restarts the Space
                patiently(api.add_space_variable, space, key, value)
    except HUB_ERRORS as error:
        listed = ", ".join(f"{key}={value}" for key, value in variables.items()) or "none"
        kind = PermissionError if status_of(error) in (401, 403) else ConnectionError
        raise kind(
            f"the files of {repository} are there, but its variables could not be set ({first_line(error)}): it may "
            "show something else. Push again, or set those that begin with MSAE_ in its settings on the Hub: "
            f"{listed}"
        ) from error


def _is_in_package(key: str, value: str) -> bool:
    """Whether the model or data of a setting come with the package."""
    if key == "dataset":
        return value.startswith("scenes:") or value in DEFAULT_DATASETS.values()
    return find_built_in(value) is not None if key == "backbone" else find_released(value) is not None


def space_variables(settings: ExplorerSettings) -> dict[str, str]:
    """The Space's variables for these settings."""
    found = {}
    for key, value in settings.chosen().items():
        if key in _OWN_FOLDERS:
            raise ValueError(f"{key}={value} is a folder of this machine, which a Space cannot read: leave it out")
        if key == "concepts" and Path(value).expanduser().exists():
            raise ValueError(f"concepts={value} is on this machine: name a table in the model's repository")
        if key in ("model", "dataset", "embeddings", "patch_model", "backbone"):
            if Path(value).expanduser().exists() or value.startswith((".", "/", "~")):
                raise ValueError(
                    f"{key}={value} is on this machine, where a Space cannot read it: push it to the Hub first ("
                    "hf-msae push, hf_msae.hub.push_embeddings) and name it user/name, or see the page here "
                    "with hf-msae demo"
                )
            if not (is_hub_id(value) or _is_in_package(key, value)):
                raise ValueError(f"{key}={value} is neither user/name on the Hub nor part of the package")
        found[f"MSAE_{key.upper()}"] = str(value)
    if settings.dataset is None and settings.embeddings is None:  # which name their pictures
        raise ValueError(f"it is not known which pictures to show with {settings.model}: name them with --dataset")
    return found
