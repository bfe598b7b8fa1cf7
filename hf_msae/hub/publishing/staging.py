"""The files of a release, put together in a folder of their own as they will be on the Hub."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..._utils.json_files import write_json, write_text
from ..._utils.redaction import public, public_model_name
from ...concepts import ConceptTable
from ...plotting import plot_quality_against_k, save_figure
from ...training.record import TrainingRecord
from .card import QUALITY_FIGURE, read_json, render_model_card
from .card_edits import is_edited
from .card_tables import load_names
from .verification import MEASURE, read_metrics, verify_release

if TYPE_CHECKING:
    from ...model.modeling_msae import MSAEModel

logger = logging.get_logger(__name__)

CARD = "README.md"
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")
_JSON_FILES = ("training.json", "conversion.json")
_LOG = "training_log.jsonl"
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)[^)]*\)|<img[^>]*?src=[\"']([^\"']+)[\"']")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")


@dataclass(frozen=True)
class StagedModel:
    """A model that is ready to be published.

    Attributes:
        folder: The folder with its files.
        subfolder: Their folder in the repository; "" is its root.
        render_card: Renders the card from these files, given the license.
        local_card: The README.md of the run's folder, if a person has edited it.
    """

    folder: Path
    subfolder: str
    render_card: Callable[[str | None], str]
    local_card: str | None

    def path_in_repo(self, name: str) -> str:
        """Path in the repository of a file of this model."""
        return f"{self.subfolder}/{name}" if self.subfolder else name

    def files(self) -> dict[str, Path]:
        """Path in the folder -> file, without the card."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        names = {path.relative_to(self.folder).as_posix(): path for path in found}
        return {name: path for name, path in names.items() if name != CARD}


def stage_model(
    source: MSAEModel | Path,
    folder: Path,
    repo_id: str,
    *,
    subfolder: str = "",
    run_dir: Path | None = None,
    allow_unmeasured: bool = False,
    remote_code: bool = False,
    license: str | None = None,
    tags: Sequence[str] | None = None,
    max_shard_size: str | int | None = None,
    revision: str | None = None,
) -> StagedModel:
    """Put together what is published of a model, and verify it by loading it back.

    Args:
        source: A model, or the folder of a run.
        folder: New or empty folder to write to.
        repo_id: Repository that it goes to, for the card.
        subfolder: Folder in the repository.
        run_dir: For a model in memory, the folder of its run with metrics, names and figures.
        allow_unmeasured: Publish without metrics; the card says so.
        remote_code: Add modules that load the model without this package.
        license: License of the weights.
        tags: More tags for the card.
        max_shard_size: Maximum size of a file of weights.
        revision: Branch that it goes to, for the card.

    Raises:
        OSError: The run holds no model, or does not load back.
        ValueError: The run has no metrics, or those of another model, or something does not load back.
    """
    from ...model.modeling_msae import MSAEModel

    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        run_dir, model = source, MSAEModel.from_pretrained(source)
    else:
        model = source
    if isinstance(source, Path) and max_shard_size is None:
        _copy_weights(source, folder)
        shutil.copyfile(source / "config.json", folder / "config.json")
    else:
        model.save_pretrained(folder, **({} if max_shard_size is None else {"max_shard_size": max_shard_size}))
    record = None if run_dir is None else TrainingRecord.load(run_dir)
    _publish_config(folder, record.base_model_is_local if record else None)
    if remote_code:
        from .remote_code import add_remote_code

        add_remote_code(folder)
    metrics = _metrics_of(run_dir, model, allow_unmeasured)
    if metrics is not None:
        write_json(folder / "metrics.json", public(metrics))
    local_card = None if run_dir is None else _copy_run(run_dir, folder, metrics)
    if local_card is not None and not is_edited(local_card):
        local_card = None

    def render_card(license: str | None) -> str:
        return render_model_card(
            folder,
            model_id=repo_id,
            subfolder=subfolder or None,
            model_name=subfolder or repo_id.split("/")[-1],
            license=license,
            tags=tags or (),
            revision=revision,
        )

    card = render_card(license)
    _keep_pictures(folder, run_dir, card + (local_card or ""))
    write_text(folder / CARD, card)
    verify_release(folder, model)
    return StagedModel(folder, subfolder, render_card, local_card)


def _metrics_of(run_dir: Path | None, model: MSAEModel, allow_unmeasured: bool) -> dict[str, Any] | None:
    """What is published of a run's metrics.json, if anything.

    Raises:
        ValueError: There are no metrics, or they belong to another model, or do not say to which weights.
    """
    file = None if run_dir is None else run_dir / "metrics.json"
    if file is not None and file.is_file():
        if allow_unmeasured and (read_json(file) or {}).get("model_sha256") is None:
            logger.warning(
                f"{file} does not say which weights it was measured on (no model_sha256), so it is not published and "
                f"the card says that nothing was measured; {MEASURE}"
            )
            return None
        return read_metrics(file, model)
    if allow_unmeasured:
        return None
    name = "the model" if run_dir is None else str(run_dir)
    way = "" if run_dir is not None else "give the folder of its run as run_dir=, "
    raise ValueError(
        f"{name} has no metrics.json, and only measured models are published: {way}{MEASURE}, or publish it all the "
        "same with allow_unmeasured=True (--allow_unmeasured), which the card then says"
    )


def pictures_of(card: str) -> set[str]:
    """Relative paths of the pictures that a card shows."""
    found = {markdown or html for markdown, html in _IMAGE.findall(card)}
    return {name.removeprefix("./") for name in found if "://" not in name and not name.startswith(("/", "data:"))}


def _copy_weights(source: Path, folder: Path) -> None:
    names = [path.name for path in sorted(source.iterdir()) if WEIGHTS.fullmatch(path.name)]
    index = source / "model.safetensors.index.json"
    if "model.safetensors" in names:
        names = ["model.safetensors"]  # what transformers loads if both are there
    elif index.is_file():
        names = sorted({index.name, *(read_json(index) or {})["weight_map"].values()})
    for name in names:
        shutil.copyfile(source / name, folder / name)


def _publish_config(folder: Path, is_local: bool | None) -> None:
    """Remove paths of this machine and the names of remote code from config.json.

    Args:
        folder: The folder that is published.
        is_local: Whether the backbone was a folder on the machine of the training; None if that is not recorded.
    """
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    backbone = content.get("base_model_name_or_path")
    content = {key: value for key, value in public(content).items() if key != "auto_map"}
    if backbone is not None:
        content["base_model_name_or_path"] = public_model_name(backbone, is_local)
        if content["base_model_name_or_path"] != backbone:
            logger.warning(
                f"base_model_name_or_path is {backbone}, a folder: the release says "
                f"{content['base_model_name_or_path']!r} only, which nobody else can load. Set it to the backbone's "
                "id on the Hub in config.json"
            )
    write_text(folder / "config.json", json.dumps(content, indent=2, sort_keys=True) + "\n")


def _copy_run(run_dir: Path, folder: Path, metrics: Mapping[str, Any] | None) -> str | None:
    """Copy the rest of a run's folder; returns the text of its card."""
    for name in _JSON_FILES:
        content = read_json(run_dir / name)
        if content is not None:
            write_json(folder / name, public(content))
    if (run_dir / _LOG).is_file():
        lines = (run_dir / _LOG).read_text(encoding="utf-8").splitlines()
        records = [_public_line(run_dir / _LOG, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        write_text(folder / _LOG, "".join(f"{record}\n" for record in records))
    for path in sorted((run_dir / "concepts").glob("*.parquet")):
        table = load_names(path)
        ConceptTable(table.frame, public(table.provenance)).save(folder / "concepts" / path.name)
    for path in sorted(run_dir.glob("*.png")):
        if path.name != QUALITY_FIGURE:
            shutil.copyfile(path, folder / path.name)
        elif metrics is not None:  # the run's own may show an earlier evaluation
            save_figure(plot_quality_against_k(metrics), folder / path.name)
    card = run_dir / CARD
    return card.read_text(encoding="utf-8") if card.is_file() else None


def _public_line(file: Path, number: int, line: str) -> str:
    try:
        return json.dumps(public(json.loads(line)))
    except ValueError as error:
        raise ValueError(
            f"{file}, line {number} cannot be read as JSON ({error}): a killed training may leave half a line; "
            "delete it"
        ) from error


def _keep_pictures(folder: Path, run_dir: Path | None, shown_by: str) -> None:
    """Keep the pictures that the card shows, including those that a person has put there."""
    shown = pictures_of(shown_by)
    for path in folder.glob("*.png"):
        if path.name not in shown:
            path.unlink()
    if run_dir is None:
        return
    for name in shown:
        path = run_dir / name
        inside = not os.path.normpath(name).startswith("..")
        if inside and name != QUALITY_FIGURE and path.is_file() and path.suffix.lower() in _PICTURES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)


def find_models(folder: Path) -> dict[str, Path]:
    """Find the models in a folder: subfolder -> folder, or {"": folder} if it is a model itself.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no model in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with a model to publish")
    if _is_msae(folder):
        return {"": folder}
    found = {path.relative_to(folder).as_posix(): path for path in _models_below(folder, depth=3)}
    if not found:
        raise ValueError(
            f"{folder} and its subfolders hold no MSAE: give the output folder of hf-msae train, or of a sweep"
        )
    return found


def _models_below(folder: Path, depth: int) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith((".", "checkpoint-")):
            continue
        if _is_msae(path):
            found.append(path)
        elif depth > 1:
            found += _models_below(path, depth - 1)
    return found


def _is_msae(folder: Path) -> bool:
    file = folder / "config.json"
    if not file.is_file():
        return False
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("model_type") == "msae"
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not the config of a model ({error})") from error
