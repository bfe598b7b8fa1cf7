"""Loading an MSAE, the names of its latents, and checking that a backbone fits it."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ..._utils.paths import refuse_missing_path
from .registry import find_released, hint_at_released

if TYPE_CHECKING:
    import torch

    from ...backbones import Backbone
    from ...concepts import ConceptTable
    from ...model.modeling_msae import MSAEModel


def load_msae(
    name: str | os.PathLike,
    revision: str | None = None,
    subfolder: str | None = None,
    dtype: torch.dtype | str | None = None,
) -> MSAEModel:
    """Load an MSAE by a folder, "user/name" on the Hub, or a name that `hf_msae.list_released()` lists; in float32."""
    import torch

    from ...model.modeling_msae import MSAEModel

    dtype = torch.float32 if dtype is None else dtype
    released = find_released(name)
    if released is not None and (revision or subfolder):
        raise ValueError(
            f"{name} is a released model, which has its revision and subfolder: leave out {revision or subfolder!r}, "
            "or name the repository itself"
        )
    if released is not None and released.place is not None:
        return released.load(dtype=dtype)
    if released is not None:
        model = released.load()
        return model if dtype == "auto" else model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    name, is_local = str(name), Path(name).expanduser().exists()
    if not is_local and "/" not in name and not name.startswith((".", "~")):  # cannot be a Hub id
        raise OSError(f"{name!r} is neither a folder nor a released model; {hint_at_released(name)}")
    refuse_missing_path(name)
    if is_local and revision is not None:
        raise ValueError(f"{name} is a folder, which has no revision {revision!r}: leave it out")
    try:
        return MSAEModel.from_pretrained(name, revision=revision, subfolder=subfolder or "", dtype=dtype)
    except OSError as error:
        problem = "" if is_local else "there is no such folder, and as a Hub id: "
        raise OSError(f"no MSAE could be loaded from {name!r}: {problem}{error}") from error


def check_fit(backbone: Backbone, msae: MSAEModel, strict: bool = True) -> None:
    """Raise ValueError, with what the MSAE was trained on, unless that is what this backbone returns.

    With `strict`, the backbone also has to be the same: by the hashes of its weights and image processor or, where
    they are not recorded, by its name and revision.
    """
    from ...backbones.identity import difference

    config, hook_point = msae.config, msae.config.hook_point
    trained = f"the MSAE was trained on {hook_point} of {config.base_model_name_or_path or 'an unknown backbone'}"
    if config.base_model_revision:
        trained += f" at revision {config.base_model_revision}"
    try:
        backbone.require(hook_point)
    except ValueError as error:
        raise ValueError(f"{trained}, but {error}") from None
    width = backbone.width(hook_point)
    if width != config.d_in:
        raise ValueError(f"{trained}, {config.d_in} wide, but that of {backbone.name_or_path} is {width} wide")
    if not strict:
        return
    way_out = "use them together all the same with strict=False (--allow_other_backbone)"
    names = _resolved(config.base_model_name_or_path), _resolved(backbone.name_or_path)
    revisions = config.base_model_revision, backbone.revision
    if revisions[0] is not None and (names[0], revisions[0]) == (names[1], revisions[1]):
        return  # the same commit on the Hub
    other = difference(backbone, config.base_model_weights_sha256, config.base_model_processor_sha256)
    if other:
        raise ValueError(f"{trained}, but {backbone.label} has {other}: {way_out}")
    for expected, found in (names, revisions):
        if other is None and expected and found and expected != found:
            raise ValueError(f"{trained}, not on {found}: {way_out}")


def _resolved(name: str | None) -> str | None:
    """The absolute path of a local folder; one name for the backbone of this package; other names as they are."""
    from ..._utils.built_in import find_built_in

    if built_in := find_built_in(name):
        return built_in
    return str(Path(name).expanduser().resolve()) if name and Path(name).expanduser().is_dir() else name


def concept_files(name: str | os.PathLike, revision: str | None = None, subfolder: str | None = None) -> list[Path]:
    """Find the tables of names that belong to an MSAE, as `load_msae` names it; those on the Hub are downloaded."""
    released = find_released(name)
    if released is not None:
        if released.place is None:
            return []
        name, subfolder, revision = released.place
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.exists() or str(name).count("/") != 1:
            return []
        pattern = f"{glob.escape(subfolder)}/concepts/*.parquet" if subfolder else "concepts/*.parquet"
        try:
            folder = Path(snapshot_download(str(name), revision=revision, allow_patterns=[pattern]))
        except LocalEntryNotFoundError:  # offline, and nothing of it was ever downloaded
            return []
    return sorted((folder / (subfolder or "")).glob("concepts/*.parquet"))


def chosen_concepts(
    chosen: str, name: str | os.PathLike, revision: str | None = None, subfolder: str | None = None
) -> ConceptTable:
    """Load a table of names by its path, or by its name among those of an MSAE, as `concept_files` finds them."""
    from ...concepts.table import ConceptTable

    path = Path(chosen).expanduser()
    if not path.is_file():
        tables = {file.stem: file for file in concept_files(name, revision, subfolder)}
        path = tables.get(chosen.removesuffix(".parquet"))
        if path is None:
            has = f"{name} has {', '.join(tables)}, and " if tables else ""
            raise FileNotFoundError(f"there is no file of names {chosen}; {has}`hf-msae name` writes one")
    return ConceptTable.load(path)


def concepts_beside(
    name: str | os.PathLike, revision: str | None = None, subfolder: str | None = None
) -> ConceptTable | None:
    """Load the table of names of an MSAE: of several, the one with the most validated names, with a warning.

    Arguments and errors are those of `concept_files`; None if there is no table.
    """
    from ...concepts.table import ConceptTable

    files = concept_files(name, revision, subfolder)
    chosen = most_validated(files)
    if len(files) > 1:
        others = ", ".join(file.name for file in files if file != chosen)
        warnings.warn(
            f"{name} has several tables of names: {chosen.name} is used, since no other has more validated names, not "
            f"{others}; choose another with --concepts (in Python: model.concepts = ConceptTable.load(...))",
            stacklevel=3,
        )
    return None if chosen is None else ConceptTable.load(chosen)


def most_validated(files: Sequence[Path]) -> Path | None:
    """Return the table of names with the most validated names, the first of them if several have as many.

    Tables that cannot be read come last.
    """
    from ...concepts.table import ConceptTable

    def number(file: Path) -> int:
        try:
            table = ConceptTable.load(file)
        except (ValueError, OSError):  # raised where it is the only one
            return -1
        return len(table.validated()) if table.has_q_values else 0

    return max(files, key=number, default=None) if len(files) > 1 else next(iter(files), None)
