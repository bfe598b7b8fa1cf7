"""The files of a release, put together in a folder of their own, as they will lie on the Hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..._utils.fingerprint import model_fingerprint
from ..._utils.json_files import write_json
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
    """A model, ready to be published.

    Attributes:
        folder: where its files lie.
        subfolder: where they will lie in the repository; "" is its root.
        fingerprint: `model_fingerprint` of the model.
        render_card: makes the card from these files alone; arguments as `render_model_card`.
        local_card: the README.md of the run's folder, where a person has edited it.
        run_dir: the run's folder, where there is one.
    """

    folder: Path
    subfolder: str
    fingerprint: str
    render_card: Callable[..., str]
    local_card: str | None
    run_dir: Path | None = None

    def path_in_repo(self, name: str) -> str:
        """Where a file of this model lies in the repository."""
        return f"{self.subfolder}/{name}" if self.subfolder else name

    def files(self) -> dict[str, Path]:
        """Path in the repository -> file, without the card."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        names = {path.relative_to(self.folder).as_posix(): path for path in found}
        return {self.path_in_repo(name): path for name, path in names.items() if name != CARD}


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
        source: the model, or the folder of a run.
        folder: where to; new, or empty.
        repo_id: of the repository, for the card.
        subfolder: of the repository.
        run_dir: the folder of a model in memory's run: metrics, names, figures.
        allow_unmeasured: publish without metrics; the card says so.
        remote_code: put modules beside it that load it without this package.
        license, tags: for the card.
        max_shard_size: cut the weights into files of this size.
        revision: the branch that it goes to, for the card.

    Raises:
        OSError, ValueError: the run holds no model, or no metrics, or those of another one, or does not load back.
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
    render = partial(
        render_model_card,
        folder,
        model_id=repo_id,
        subfolder=subfolder or None,
        model_name=subfolder or repo_id.split("/")[-1],
        license=license,
        tags=tags or (),
        revision=revision,
    )
    card = render()
    if local_card is not None and not is_edited(local_card):
        local_card = None
    _keep_pictures(folder, run_dir, card + (local_card or ""))
    (folder / CARD).write_text(card, encoding="utf-8")
    fingerprint = model_fingerprint(model)
    verify_release(folder, fingerprint)
    return StagedModel(folder, subfolder, fingerprint, render, local_card, run_dir)


def _metrics_of(run_dir: Path | None, model: MSAEModel, allow_unmeasured: bool) -> dict[str, Any] | None:
    """What is published of a run's metrics.json; None where that is nothing.

    Raises:
        ValueError: there are none, or others than the model's, or they do not say of which weights they are.
    """
    file = None if run_dir is None else run_dir / "metrics.json"
    if file is not None and file.is_file():
        if allow_unmeasured and (read_json(file) or {}).get("model_sha256") is None:
            logger.warning(
                f"{file} does not say of which weights it is (no model_sha256), so it is not published, and the card "
                f"says that nothing was measured; {MEASURE}"
            )
            return None
        return read_metrics(file, model)
    if allow_unmeasured:
        return None
    name = "the model" if run_dir is None else str(run_dir)
    way = "" if run_dir is not None else "name the folder of its run by run_dir=, "
    raise ValueError(
        f"{name} has no metrics.json, and nothing is published that was not measured: {way}{MEASURE}, "
        "or say allow_unmeasured=True (--allow_unmeasured), which the card then states"
    )


def pictures_of(card: str) -> set[str]:
    """The files that a card shows: relative paths of pictures."""
    found = {markdown or html for markdown, html in _IMAGE.findall(card)}
    return {name.removeprefix("./") for name in found if "://" not in name and not name.startswith(("/", "data:"))}


def _copy_weights(source: Path, folder: Path) -> None:
    names = [path.name for path in sorted(source.iterdir()) if WEIGHTS.fullmatch(path.name)]
    index = source / "model.safetensors.index.json"
    if "model.safetensors" in names:
        names = ["model.safetensors"]  # what transformers loads where both are there
    elif index.is_file():
        names = sorted({index.name, *(read_json(index) or {})["weight_map"].values()})
    for name in names:
        shutil.copyfile(source / name, folder / name)


def _publish_config(folder: Path, is_local: bool | None) -> None:
    """config.json without paths of this machine, and without the modules that an earlier copy had beside it.

    Args:
        is_local: whether the backbone was a folder where the model was trained, as far as that is recorded.
    """
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    backbone = content.get("base_model_name_or_path")
    content = {key: value for key, value in public(content).items() if key != "auto_map"}
    if backbone is not None:
        content["base_model_name_or_path"] = public_model_name(backbone, is_local)
        if content["base_model_name_or_path"] != backbone:
            logger.warning(
                f"base_model_name_or_path is {backbone}, a folder: the release says "
                f"{content['base_model_name_or_path']!r} alone, by which nobody can load it. Set it to the backbone's "
                "id on the Hub in config.json"
            )
    (folder / "config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _copy_run(run_dir: Path, folder: Path, metrics: Mapping[str, Any] | None) -> str | None:
    """What a run's folder has besides model and metrics; returns its card."""
    for name in _JSON_FILES:
        content = read_json(run_dir / name)
        if content is not None:
            write_json(folder / name, public(content))
    if (run_dir / _LOG).is_file():
        lines = (run_dir / _LOG).read_text(encoding="utf-8").splitlines()
        records = [_public_line(run_dir / _LOG, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        (folder / _LOG).write_text("".join(f"{record}\n" for record in records), encoding="utf-8")
    for path in sorted((run_dir / "concepts").glob("*.parquet")):
        table = load_names(path)
        ConceptTable(table.frame, public(table.provenance)).save(folder / "concepts" / path.name)
    for path in sorted(run_dir.glob("*.png")):
        if path.name != QUALITY_FIGURE:
            shutil.copyfile(path, folder / path.name)
        elif metrics is not None:  # anew: the run's may be that of an earlier evaluation
            save_figure(plot_quality_against_k(metrics), folder / path.name)
    card = run_dir / CARD
    return card.read_text(encoding="utf-8") if card.is_file() else None


def _public_line(file: Path, number: int, line: str) -> str:
    try:
        return json.dumps(public(json.loads(line)))
    except ValueError as error:
        raise ValueError(
            f"{file}, line {number} cannot be read as JSON ({error}): a training that was killed may leave half a "
            "line; delete it"
        ) from error


def _keep_pictures(folder: Path, run_dir: Path | None, shown_by: str) -> None:
    """Of the pictures those that the card shows, those included that a person has put into it."""
    shown = pictures_of(shown_by)
    for path in folder.glob("*.png"):
        if path.name not in shown:
            path.unlink()
    if run_dir is None:
        return
    for name in shown:
        path = run_dir / name
        inside = not os.path.normpath(name).startswith("..")
        made_anew = name == QUALITY_FIGURE
        if inside and not made_anew and path.is_file() and path.suffix.lower() in _PICTURES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)


def find_models(folder: Path) -> dict[str, Path]:
    """Subfolder -> folder of the models in it: {"": folder} where it is one itself.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no model is in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with a model to publish")
    if _is_msae(folder):
        return {"": folder}
    found = {path.relative_to(folder).as_posix(): path for path in _models_below(folder, depth=3)}
    if not found:
        raise ValueError(
            f"{folder} holds no MSAE, nor does a folder in it: name the output_dir of `hf-msae train`, or of a sweep"
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
        raise ValueError(f"{file} is no model's config ({error})") from error


def temporary_folder() -> tempfile.TemporaryDirectory:
    """A folder that goes when it is left."""
    return tempfile.TemporaryDirectory(prefix="hf_msae-release-")
