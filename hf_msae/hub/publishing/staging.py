"""The files of a release, put together in a folder of their own as they will be on the Hub."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from huggingface_hub import CommitOperationAdd
from transformers.utils import logging

from ..._utils.json_files import read_json, write_json, write_text
from ..._utils.redaction import local_paths, public, public_model_name
from ...concepts import ConceptTable
from ...model.modeling_msae import MSAEModel
from ...plotting import plot_quality_against_k, save_figure
from ...training.record import TrainingRecord
from .card import FIGURES, QUALITY_FIGURE, render_model_card
from .card_edits import is_edited
from .card_tables import load_names
from .remote_code import add_remote_code
from .sent_files import additions, refuse_foreign_links
from .verification import MEASURE, read_metrics, verify_release

logger = logging.get_logger(__name__)

CARD = "README.md"
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")
_RECORDS = ("training.json", "conversion.json")
_LOG = "training_log.jsonl"
_IMAGE = re.compile(r"!\[[^\]]*\]\((?:<([^>\n]+)>|([^)\s]+))[^)]*\)|<img[^>]*?src=[\"']([^\"']+)[\"']")
_EXAMPLE = re.compile(
    r'\b(VisionTextMSAE|AutoModel)\.from_pretrained\("(?P<model>[^"\n]+)"'
    r'(?:, (?:revision|subfolder|backbone)="[^"\n]+"|, strict=False)*\)'
)
"""How the examples of a card load the model."""
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")


@dataclass(frozen=True)
class StagedModel:
    """A model that is ready to be published."""

    folder: Path  # the folder with its files
    subfolder: str  # their folder in the repository; "" is its root
    render_card: Callable[[str | None], str]  # renders the card from these files, given the license
    local_card: str | None  # the README.md of the run's folder, if a person has edited it

    @property
    def prefix(self) -> str:
        """What paths of this model begin with in the repository."""
        return f"{self.subfolder}/" if self.subfolder else ""

    @cached_property
    def additions(self) -> dict[str, CommitOperationAdd]:
        """Path in the folder -> file to be sent, without the card."""
        return {name: each for name, each in additions(self.folder, self.prefix).items() if name != CARD}


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
    tags: Sequence[str] = (),
    max_shard_size: str | int | None = None,
    revision: str | None = None,
) -> StagedModel:
    """Put together what is published of a model, or of the folder of its run, and verify it by loading it back.

    `folder` is new or empty. The other arguments are those of `push_to_hub`; `subfolder`, `tags` and `revision` are
    for the card.
    """
    model, run_dir = source, source if isinstance(source, Path) else run_dir
    if run_dir is not None:
        refuse_foreign_links(run_dir, _published_names(run_dir))
    if isinstance(source, Path):
        model = MSAEModel.from_pretrained(source)
    model.save_pretrained(folder, **({} if max_shard_size is None else {"max_shard_size": max_shard_size}))
    record = None if run_dir is None else TrainingRecord.load(run_dir)
    _publish_config(folder, record.base_model_is_local if record else None)
    if remote_code:
        add_remote_code(folder)
    metrics = _metrics_of(run_dir, model, allow_unmeasured)
    if metrics is not None:
        write_json(folder / "metrics.json", public(metrics))
    if run_dir is not None:
        _copy_run(run_dir, folder, metrics)

    @cache  # the card of a new repository is the one that was verified
    def render_card(license: str | None) -> str:
        return render_model_card(
            folder,
            model_id=repo_id,
            subfolder=subfolder or None,
            model_name=subfolder or repo_id.split("/")[-1],
            license=license,
            tags=tags,
            revision=revision,
        )

    write_text(folder / CARD, render_card(license))
    local_card = None
    if run_dir is not None and (run_dir / CARD).is_file():
        text = (run_dir / CARD).read_text(encoding="utf-8")
        if is_edited(text):
            where = {run_dir: repo_id}
            if backbone := model.config.base_model_name_or_path:
                where[Path(backbone)] = f"path/to/{public_model_name(backbone, True)}"
            local_card = _public_card(text, render_card(license), where, run_dir / CARD)
            _copy_pictures(run_dir, folder, local_card)
    verify_release(folder, model)
    return StagedModel(folder, subfolder, render_card, local_card)


def _published_names(run_dir: Path) -> list[str]:
    """The files in a run's folder whose content a release has, without pictures that a person has put in the card."""
    known = {"config.json", CARD, "metrics.json", *_RECORDS, _LOG, *FIGURES, "concepts"}
    names = [path.name for path in run_dir.iterdir() if path.name in known or WEIGHTS.fullmatch(path.name)]
    return [*names, *(f"concepts/{path.name}" for path in (run_dir / "concepts").glob("*.parquet"))]


def _publish_config(folder: Path, is_local: bool | None) -> None:
    """Remove paths of this machine and the names of remote code from config.json.

    `is_local` says whether the backbone was a folder on the machine of the training; None if that is not recorded.
    """
    config = read_json(folder / "config.json")
    backbone = config.get("base_model_name_or_path")
    published = public(config) | {"base_model_name_or_path": public_model_name(backbone, is_local)}
    published.pop("auto_map", None)
    if published["base_model_name_or_path"] != backbone:
        logger.warning(
            f"base_model_name_or_path is {backbone}, a folder: the release says "
            f"{published['base_model_name_or_path']!r} only, which nobody else can load. Set it to the backbone's id "
            "on the Hub in config.json"
        )
    write_text(folder / "config.json", json.dumps(published, indent=2, sort_keys=True) + "\n")


def _metrics_of(run_dir: Path | None, model: MSAEModel, allow_unmeasured: bool) -> dict[str, Any] | None:
    """What is published of a run's metrics.json, if anything; refuse metrics of other models."""
    file = None if run_dir is None else run_dir / "metrics.json"
    metrics = None if file is None else read_json(file)
    if metrics is not None and not (allow_unmeasured and metrics.get("model_sha256") is None):
        return read_metrics(file, model)
    if not allow_unmeasured:
        way = "" if run_dir is not None else "give the folder of its run as run_dir=, "
        raise ValueError(
            f"{run_dir or 'the model'} has no metrics.json, and only measured models are published: {way}{MEASURE}, "
            "or publish it all the same with allow_unmeasured=True (--allow_unmeasured), which the card then says"
        )
    if metrics is not None:
        logger.warning(
            f"{file} does not say which weights it was measured on (no model_sha256), so it is not published and the "
            f"card says that nothing was measured; {MEASURE}"
        )
    return None


def _copy_run(run_dir: Path, folder: Path, metrics: dict[str, Any] | None) -> None:
    """Copy the records, names and figures of a run, without paths of this machine."""
    for name in _RECORDS:
        content = read_json(run_dir / name)
        if content is not None:
            write_json(folder / name, public(content))
    log = run_dir / _LOG
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines()
        records = [_public_line(log, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        write_text(folder / log.name, "".join(f"{record}\n" for record in records))
    for path in sorted((run_dir / "concepts").glob("*.parquet")):
        table = load_names(path)
        ConceptTable(table.frame, public(table.provenance)).save(folder / "concepts" / path.name)
    for name in FIGURES:
        if (run_dir / name).is_file() and name != QUALITY_FIGURE:
            shutil.copyfile(run_dir / name, folder / name)
        elif (run_dir / name).is_file() and metrics is not None:  # the run's own may show an earlier evaluation
            save_figure(plot_quality_against_k(metrics), folder / name)


def _public_line(file: Path, number: int, line: str) -> str:
    try:
        return json.dumps(public(json.loads(line)))
    except ValueError as error:
        raise ValueError(
            f"{file}, line {number} cannot be read as JSON ({error}): a killed training may leave half a line; "
            "delete that line"
        ) from error


def pictures_of(card: str) -> set[str]:
    """Relative paths of the pictures that a card shows, in which a space may be written as %20."""
    found = {unquote("".join(ways)) for ways in _IMAGE.findall(card)}
    return {name.removeprefix("./") for name in found if "://" not in name and not name.startswith(("/", "data:"))}


def _public_card(text: str, generated: str, where: Mapping[Path, str], file: Path) -> str:
    """Replace folders of this machine in the text of a card that a person has edited, and warn of those left in it.

    Examples that load a folder become those of the `generated` card: the run may have been moved since they were
    written. Of other code, the folders in `where` get the name that is published.
    """
    published = {found[1]: found.group() for found in _EXAMPLE.finditer(generated)}

    def example(found: re.Match[str]) -> str:
        is_folder = Path(found["model"]).expanduser().is_absolute()
        return published.get(found[1], found.group()) if is_folder else found.group()

    text = _EXAMPLE.sub(example, text)
    for folder, name in where.items():
        for path in (folder, folder.expanduser().resolve()):
            if path.is_absolute():
                text = text.replace(json.dumps(str(path), ensure_ascii=False), json.dumps(name, ensure_ascii=False))
    if left := local_paths(text):
        logger.warning(f"{file} names folders of this machine, which everybody can read then: {', '.join(left)}")
    return text


def _copy_pictures(run_dir: Path, folder: Path, card: str) -> None:
    """Copy the pictures that a person has put into the card."""
    for name in pictures_of(card) - set(FIGURES):
        path, inside = run_dir / name, not os.path.normpath(name).startswith("..")
        if inside and path.is_file() and path.suffix.lower() in _PICTURES:
            refuse_foreign_links(run_dir, [name])
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)


def find_models(folder: Path) -> dict[str, Path]:
    """Find the models in a folder: subfolder -> folder, or {"": folder} if it is a model itself."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with a model to publish")
    if _is_msae(folder):
        return {"": folder}
    found = {path.relative_to(folder).as_posix(): path for path in _models_below(folder, depth=3)}
    if not found:
        raise ValueError(f"{folder} and its subfolders hold no MSAE: give the output folder of hf-msae train")
    return found


def _models_below(folder: Path, depth: int) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith((".", "checkpoint-")):
            found += [path] if _is_msae(path) else _models_below(path, depth - 1) if depth > 1 else []
    return found


def _is_msae(folder: Path) -> bool:
    return (read_json(folder / "config.json") or {}).get("model_type") == "msae"
