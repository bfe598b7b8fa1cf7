"""The concept explorer as a Space on the Hub, showing a model of one's own."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import requires
from pathlib import Path

import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ... import __version__
from .committing import commit, page_of
from .manifest import MANIFEST
from .remote import (
    HUB_ERRORS,
    Changes,
    Content,
    RemoteState,
    check_before_work,
    check_repo_id,
    first_line,
    patiently,
    require_repository,
    status_of,
)
from .space_settings import ExplorerSettings

_PACKAGE = Path(__file__).parents[2]
_APP = Path(__file__).parents[3] / "spaces" / "concept-explorer"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
_OF_NEW_SPACES = {"README.md", ".gitattributes"}
"""Files that the Hub itself puts into a Space."""
_TORCH_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


def app_folder() -> Path:
    """The Space's own files: beside this file in an installed package, in spaces/ in a checkout."""
    installed = Path(__file__).with_name("concept-explorer")
    return installed if installed.is_dir() else _APP


def write_space(
    folder: Path, settings: ExplorerSettings, title: str | None = None, requirement: str | None = None
) -> Path:
    """Everything that the Space consists of.

    Args:
        folder: where to; made if it is not there.
        settings: what it shows; models and data sets on the Hub are named in its metadata.
        title: of the Space.
        requirement: how hf_msae is installed there, as "hf_msae==0.1.0". None: its files are put beside the app, which
            works whether it is on an index or not.

    Returns:
        The folder.
    """
    shutil.copytree(app_folder(), folder, dirs_exist_ok=True, ignore=_LEFT_OUT)
    lines = [_TORCH_INDEX]
    if requirement is None:
        shutil.copytree(_PACKAGE, folder / "hf_msae", ignore=_LEFT_OUT)
        lines += _dependencies()
    else:
        check_requirement(requirement)
        lines.append(requirement)
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, metadata, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    data = yaml.safe_load(metadata)
    if title is not None:
        data["title"] = title
        text = text.replace("# Concept Explorer", f"# {title}", 1)
    models = [name for name in (settings.model, settings.patch_model) if name and _is_hub_id(name)]
    sources = [name for name in (settings.dataset, settings.embeddings) if name and _is_hub_id(name)]
    data |= {key: value for key, value in (("models", models), ("datasets", sources)) if value}
    head = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    (folder / "README.md").write_text(f"---\n{head}---\n{text}", encoding="utf-8")
    return folder


def check_requirement(requirement: str) -> None:
    """Whether a Space that installs this has the package that its app needs.

    Raises:
        ValueError: it is no line for pip, or installs something else than this version of hf_msae. What lies at an
            address is not looked at.
    """
    if "\n" in requirement or not requirement.strip():
        raise ValueError(f"requirement={requirement!r} is no line of a requirements.txt, like hf_msae=={__version__}")
    if "://" in requirement:
        return
    try:
        found = Requirement(requirement)
    except InvalidRequirement as error:
        raise ValueError(f"requirement={requirement!r} is nothing that pip installs ({first_line(error)})") from error
    if canonicalize_name(found.name) != "hf-msae":
        raise ValueError(f"requirement={requirement!r} installs {found.name}, but the Space needs hf_msae")
    if not found.specifier.contains(__version__, prereleases=True):
        raise ValueError(
            f"requirement={requirement!r} installs another version than the app that is sent with it: write "
            f"hf_msae=={__version__}, push with the version that you name, or leave it out"
        )


def _dependencies() -> list[str]:
    """What the package needs, without extras: gradio comes with the Space.

    In a checkout it is that of the files which are sent. What was written down when it was installed may be older.
    """
    project = _PACKAGE.parent / "pyproject.toml"
    if sys.version_info >= (3, 11) and project.is_file():
        import tomllib

        found = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if found.get("name") == "hf_msae":
            return list(found["dependencies"])
    return [each for each in requires("hf_msae") or () if "extra ==" not in each]


def push_space(
    repo_id: str,
    settings: ExplorerSettings,
    title: str | None = None,
    requirement: str | None = None,
    private: bool = False,
    token: str | None = None,
    overwrite: bool = False,
) -> str:
    """Make a Space, or renew one, in one commit; its variables say what it shows.

    `msae_files.json` there says which files were sent. Of these, what is not needed any more is deleted; others are
    neither deleted nor replaced.

    Args:
        repo_id: "user/name".
        settings: what it shows. Folders of this machine are not there, so models and data have to be on the Hub, or
            be those that come with the package.
        title, requirement: as for `write_space`.
        private: whether a Space that is made is private.
        token: by default the one that is logged in.
        overwrite: replace files that are in the way, which somebody else has put there or edited there.

    Returns:
        Its address.

    Raises:
        ValueError: a setting names something of this machine, or files are in the way.
        PermissionError: nobody is logged in, or may not write there.
        ConnectionError: the Hub cannot be reached, or fails again and again; says what has become of the Space.
    """
    check_repo_id(repo_id)
    variables = space_variables(settings)
    check_before_work(repo_id, token, "space")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as place:
        folder = write_space(Path(place) / "space", settings, title, requirement)
        files = {path.relative_to(folder).as_posix(): Content(path) for path in folder.rglob("*") if path.is_file()}
        sent = {path: content.sha256 for path, content in sorted(files.items())}
        files[MANIFEST] = Content((json.dumps({"format_version": 1, "files": sent}, indent=2) + "\n").encode())

        def plan(state: RemoteState) -> Changes:
            before = _sent_before(state)
            if not overwrite:
                _check_nothing_in_the_way(state, files, before)
            gone = [path for path in before if path not in files and state.holds_sha256(path, before[path])]
            return Changes(files, tuple(gone))

        require_repository(api, repo_id, private or None, repo_type="space")
        commit(api, repo_id, plan, "Show concepts", repo_type="space")
    _set_variables(api, repo_id, variables)
    return page_of(api, repo_id, "space")


def _sent_before(state: RemoteState) -> dict[str, str]:
    """Path -> SHA-256 of what an earlier push has put there."""
    text = state.read(MANIFEST)
    if text is None:
        return {}
    try:
        return {str(path): str(digest) for path, digest in json.loads(text)["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{MANIFEST} of the Space {state.repo_id} is damaged ({error!r}): delete it on the Hub, and push again "
            "with overwrite=True (--overwrite)"
        ) from error


def _check_nothing_in_the_way(state: RemoteState, files: Mapping[str, Content], before: Mapping[str, str]) -> None:
    """Raises:
    ValueError: a push would replace what somebody else has put there, or has edited there.
    """
    if not before and set(state.files) <= _OF_NEW_SPACES:
        return
    foreign = [
        path
        for path, content in files.items()
        if path in state.files
        and path != MANIFEST
        and not state.holds(path, content)
        and not (path in before and state.holds_sha256(path, before[path]))
    ]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise ValueError(
            f"{', '.join(sorted(foreign)[:3])}{more} of the Space {state.repo_id} would be replaced, but no push by "
            "hf_msae has put that there: name another Space, or replace them with overwrite=True (--overwrite)"
        )


def _set_variables(api: HfApi, repo_id: str, variables: Mapping[str, str]) -> None:
    """After the commit: if that fails, the Space is as it was. Variables of an earlier push would go on meaning
    something, and are deleted.

    Raises:
        ConnectionError, PermissionError: not all could be set.
    """
    try:
        there = patiently(api.get_space_variables, repo_id)
        for key in there:
            if key.startswith("MSAE_") and key not in variables:
                _delete_variable(api, repo_id, key)
        for key, value in variables.items():
            if key not in there or there[key].value != value:  # each change starts the Space anew
                patiently(api.add_space_variable, repo_id, key, value)
    except HUB_ERRORS as error:
        listed = ", ".join(f"{key}={value}" for key, value in variables.items()) or "none"
        kind = PermissionError if status_of(error) in (401, 403) else ConnectionError
        raise kind(
            f"the files of the Space {repo_id} are there, but its variables could not be set ({first_line(error)}): "
            "it may show something else. Push again, or set them in its settings on the Hub. Those that begin with "
            f"MSAE_ have to be: {listed}"
        ) from error


def _delete_variable(api: HfApi, repo_id: str, key: str) -> None:
    try:
        patiently(api.delete_space_variable, repo_id, key)
    except HfHubHTTPError as error:
        # The first of two attempts may have done it, and its answer been lost.
        if status_of(error) != 404 or key in patiently(api.get_space_variables, repo_id):
            raise


def space_variables(settings: ExplorerSettings) -> dict[str, str]:
    """The Space's variables that make these settings.

    Raises:
        ValueError: one names a folder or file of this machine.
    """
    defaults = asdict(ExplorerSettings())
    found = {}
    for key, value in asdict(settings).items():
        if value is None or value == defaults[key]:
            continue
        if key in ("model", "dataset", "embeddings", "patch_model", "backbone") and _is_local(str(value)):
            raise ValueError(
                f"{key}={value} is on this machine, where a Space cannot read it: push it to the Hub first (hf-msae "
                "push, hf_msae.hub.push_embeddings) and name it user/name"
            )
        if key in ("model", "dataset", "embeddings", "patch_model", "backbone") and not _can_be_read_there(str(value)):
            raise ValueError(
                f"{key}={value} is neither user/name on the Hub nor one that comes with the package: a Space cannot "
                "read it"
            )
        found[f"MSAE_{key.upper()}"] = str(value)
    return found


def _is_local(name: str) -> bool:
    return Path(name).expanduser().exists() or name.startswith((".", "/", "~"))


def _can_be_read_there(name: str) -> bool:
    from ..reading.registry import find_released

    return _is_hub_id(name) or name == "scenes" or name.startswith("scenes:") or find_released(name) is not None


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None
