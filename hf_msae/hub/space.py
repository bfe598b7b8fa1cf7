"""The concept explorer as a Space on the Hub, showing a model of one's own."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import asdict
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from ..explorer.settings import ExplorerSettings
from .remote import check_before_work, check_repo_id

_PACKAGE = Path(__file__).parents[1]
_APP = Path(__file__).parents[2] / "spaces" / "concept-explorer"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
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
        # gradio comes with the Space; extras are not needed there.
        lines += [each for each in requires("hf_msae") or () if "extra ==" not in each]
    else:
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


def push_space(
    repo_id: str,
    settings: ExplorerSettings,
    title: str | None = None,
    requirement: str | None = None,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Make a Space, or renew one, in one commit; its variables say what it shows.

    Args:
        repo_id: "user/name".
        settings: what it shows. Folders of this machine are not there, so models and data have to be on the Hub, or
            be those that come with the package.
        title, requirement: as for `write_space`.
        private: whether a Space that is made is private.
        token: by default the one that is logged in.

    Returns:
        Its address.

    Raises:
        ValueError: a setting names something of this machine.
        PermissionError: nobody is logged in, or may not write there.
    """
    check_repo_id(repo_id)
    variables = space_variables(settings)
    check_before_work(repo_id, token)
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as place:
        folder = write_space(Path(place) / "space", settings, title, requirement)
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        try:
            api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
            there = api.list_repo_files(repo_id, repo_type="space")
            gone = [name for name in there if name.startswith("hf_msae/") and name not in files]
            operations: list[Any] = [CommitOperationAdd(name, path) for name, path in sorted(files.items())]
            operations += [CommitOperationDelete(name) for name in gone]
            api.create_commit(repo_id, operations, commit_message="Show concepts", repo_type="space")
            # After the commit: if that fails, the Space is as it was. Variables of an earlier push would go on meaning
            # something.
            for key in api.get_space_variables(repo_id):
                if key.startswith("MSAE_") and key not in variables:
                    api.delete_space_variable(repo_id, key)
            for key, value in variables.items():
                api.add_space_variable(repo_id, key, value)
        except HfHubHTTPError as error:
            if error.response is not None and error.response.status_code in (401, 403):
                raise PermissionError(
                    f"no permission to write to the Space {repo_id}: log in with `hf auth login` as someone who has "
                    f"({error})"
                ) from error
            raise
    return f"{api.endpoint}/spaces/{repo_id}"


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
                "push, hf_msae.hub.push_activations) and name it user/name"
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
    from .registry import find_released

    return _is_hub_id(name) or name == "scenes" or name.startswith("scenes:") or find_released(name) is not None


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None
