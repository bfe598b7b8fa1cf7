"""What `hf-msae doctor` finds."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .doctor_embeddings import Embeddings, find_embeddings

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel
    from .doctor import DoctorArguments

OK, DOUBTFUL, MISSING, UNCHECKED, BROKEN = "ok", "doubtful", "missing", "unchecked", "broken"
_MOST_LISTED = 8
_UNKNOWN = "EMBEDDINGS"
_FILES = ("*.json", "*.safetensors", "README.md", "concepts/*.parquet")


@dataclass(frozen=True)
class Finding:
    """What is known about one part of a model."""

    part: str  # such as "names"
    state: str  # `OK`, `DOUBTFUL`, `MISSING`, `UNCHECKED` or `BROKEN`
    text: str  # what was found
    then: list[str] = field(default_factory=list)  # commands that help


def examine(args: DoctorArguments) -> tuple[list[Finding], list[str]]:
    """Look at everything that belongs to a model; return the findings and the commands to run next."""
    from ..model.modeling_msae import MSAEModel

    folder = _folder_of(args.model, args.revision, args.subfolder)
    if models := [] if (folder / "config.json").is_file() else _models_below(folder):
        return _of_several(args, models)
    try:
        msae = MSAEModel.from_pretrained(folder).eval()
    except (OSError, ValueError) as error:
        return [Finding("model", BROKEN, str(error))], []
    near, places = find_embeddings(folder, msae, args.data)
    fitting = [each for each in near if each.problem is None]
    fitting.sort(key=lambda each: (not each.is_given, not each.is_held_out))
    data = shlex.quote(str(fitting[0].folder)) if fitting else _UNKNOWN
    model = _named(args)
    findings = [_model(folder, msae), _training(folder, msae), _quality(folder, msae, f"{model} --data {data}")]
    findings += [_backbone(args, msae, model), *_names(folder, msae, model, data), *_data(near, places, msae, folder)]
    then = [command for each in findings for command in each.then]
    if all(each.state != BROKEN for each in findings):
        then += _uses(folder, msae, model, data)
    return findings, list(dict.fromkeys(then))


def _models_below(folder: Path) -> list[str]:
    from ..hub.publishing.staging import find_models

    try:
        return list(find_models(folder))
    except ValueError:  # there are none
        return []


def _of_several(args: DoctorArguments, models: list[str]) -> tuple[list[Finding], list[str]]:
    """Look at the models of a sweep, or of a repository with several; each gets one line."""
    findings, then = [], []
    for name in models:
        one = replace(args, subfolder="/".join(filter(None, (args.subfolder, name))))
        found = {each.part: each for each in reversed(examine(one)[0])}  # the first of several of a part
        worst = next((each for state in (BROKEN, DOUBTFUL) for each in found.values() if each.state == state), None)
        text = f"{worst.part}: {worst.text}" if worst else found["quality"].text
        findings.append(Finding(name, worst.state if worst else OK, text))
        then.append(f"hf-msae doctor {_named(one)}")
    return findings, then


def _named(args: DoctorArguments) -> str:
    """The model as commands take it."""
    if args.subfolder and Path(args.model).expanduser().is_dir():
        return shlex.quote(str(Path(args.model) / args.subfolder))
    flags = [("--subfolder", args.subfolder), ("--revision", args.revision)]
    return shlex.join([args.model, *(word for flag, value in flags if value for word in (flag, value))])


def _folder_of(model: str, revision: str | None, subfolder: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    from .._utils.paths import refuse_missing_path
    from ..hub.reading.registry import find_released, hint_at_released

    released = find_released(model)
    if released is not None:
        if released.place is None:
            raise ValueError(f"{model} belongs to another library: `hf-msae convert {model}` makes a folder of it")
        if revision or subfolder:
            raise ValueError(f"{model} is a released model, which has its revision and subfolder: leave them out")
        name, subfolder, revision = released.place
    else:
        name = model
    folder = Path(name).expanduser()
    if folder.is_dir() and revision is not None:  # other commands refuse it, too
        raise ValueError(f"{name} is a folder, which has no revision {revision!r}: leave it out")
    if not folder.is_dir():
        refuse_missing_path(name)
        if folder.exists() or "/" not in name:
            raise OSError(f"there is no folder {model}; {hint_at_released(model)}")
        patterns = [f"{subfolder}/{each}" for each in _FILES] if subfolder else list(_FILES)
        try:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
        except (HFValidationError, LocalEntryNotFoundError) as error:
            raise OSError(f"there is no folder {model}, and as a Hub id: {error}") from error
    return folder / (subfolder or "")


def _model(folder: Path, msae: MSAEModel) -> Finding:
    from ..metrics.levels import describe_levels

    config = msae.config
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**20
    family = f"{config.activation}, nesting {config.nesting}: {describe_levels(config)}"
    return Finding(
        "model",
        OK,
        f"{config.num_latents:,} latents of {config.hook_point} ({config.d_in} wide), {family}; {size:.1f} MiB",
    )


def _training(folder: Path, msae: MSAEModel) -> Finding:
    from ..hub.publishing.verification import fingerprints_of
    from ..training.record import TRAINING_FILE, TrainingRecord

    try:
        record = TrainingRecord.load(folder)
    except ValueError as error:
        return Finding("training", BROKEN, str(error))
    if record is None:
        return Finding("training", MISSING, f"there is no {TRAINING_FILE}, so it is unknown how the model was trained")
    if record.model_sha256 is not None and msae.dtype.itemsize == 4:  # other dtypes have other fingerprints
        if record.model_sha256 not in fingerprints_of(msae):
            return Finding("training", BROKEN, f"{TRAINING_FILE} is about other weights than those in the folder")
    data, steps = record.training_data or {}, record.result.get("global_step")
    text = f"{steps:,} steps" if isinstance(steps, int) else "an unknown number of steps"
    if data:
        text += f" on {data.get('num_samples') or 0:,} embeddings of {data.get('dataset') or data.get('source')}"
    advice = list(map(str, record.result.get("advice") or ()))
    return Finding("training", DOUBTFUL if advice else OK, ". ".join([text, *advice]))


def _quality(folder: Path, msae: MSAEModel, arguments: str) -> Finding:
    from .._utils.levels import read_levels
    from ..hub.publishing.verification import read_metrics
    from ..metrics.overfitting import overfitting

    file = folder / "metrics.json"
    then = [f"hf-msae evaluate {arguments} --output {shlex.quote(str(_own(folder, file.name)))}"]
    if not file.is_file():
        return Finding("quality", MISSING, "there is no metrics.json, so the model has not been measured", then)
    try:
        metrics = read_metrics(file, msae)
    except ValueError as error:
        return Finding("quality", BROKEN, str(error), then)
    data = metrics.get("data") or {}
    kind = {True: "held-out ", False: "training "}.get(data.get("held_out"), "")
    fvu = ", ".join(f"{level.metrics['fvu']:.4f} {level.phrase}" for level in read_levels(metrics).distinct)
    text, overfitted = f"FVU on {metrics['num_samples']:,} {kind}embeddings: {fvu}", overfitting(metrics)
    return Finding("quality", DOUBTFUL, f"{text}. {overfitted}") if overfitted else Finding("quality", OK, text)


def _backbone(args: DoctorArguments, msae: MSAEModel, model: str) -> Finding:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, RevisionResolutionError

    from ..backbones import Backbone
    from ..backbones.loading import locate
    from ..hub.reading.opening import check_fit

    config = msae.config
    name = args.backbone or config.base_model_name_or_path
    if name is None:
        return Finding("backbone", MISSING, "config.json names none: give one with --backbone")
    again = f"hf-msae doctor {model} --backbone FOLDER_OR_HUB_ID --check_backbone"
    try:
        location, _, revision = locate(name, None if args.backbone else config.base_model_revision)
        if Path(location).is_dir() and not (Path(location) / "config.json").is_file():
            raise FileNotFoundError(f"{name} is a folder without config.json")
        if args.check_backbone:
            check_fit(Backbone.from_pretrained(name, revision=revision), msae)
            return Finding("backbone", OK, f"{name} is the one that the model was trained on")
        if not Path(location).is_dir():  # `locate` takes a commit as it is, without looking for it
            hf_hub_download(location, "config.json", revision=revision, dry_run=True)
    except (OSError, ValueError, HTTPError) as error:
        unreachable = (
            isinstance(error, LocalEntryNotFoundError)
            or isinstance(error.__cause__, RevisionResolutionError)
            or (isinstance(error, HTTPError) and not isinstance(error, HfHubHTTPError))  # such as a proxy's refusal
        )
        text = f"{name} is not in the cache, and the Hub cannot be reached" if unreachable else str(error)
        if unreachable and not args.check_backbone:
            return Finding("backbone", UNCHECKED, f"not checked: {text}")
        return Finding("backbone", BROKEN, text, [again])
    command = f"hf-msae doctor {model} --check_backbone"
    if args.backbone:
        command += f" --backbone {shlex.quote(name)}"
    text = f"{name} is there; --check_backbone compares its weights"
    return Finding("backbone", OK, text, [command] if args.backbone else [])


def _names(folder: Path, msae: MSAEModel, model: str, data: str) -> Iterator[Finding]:
    from ..concepts.validation import too_weak
    from ..hub.publishing.card_tables import load_names
    from ..hub.publishing.verification import fingerprints_of
    from ..hub.reading.opening import most_validated
    from ..training.record import TrainingRecord

    files = sorted(folder.glob("concepts/*.parquet"))
    then = [f"hf-msae name {model} --vocabulary WORDS.txt --data {data}"]
    if ".layers." in msae.config.hook_point:  # neither words nor labels of whole rows name tokens
        then = []
    if not files:
        yield Finding("names", MISSING, "the latents have no names", then)
        return
    accepted = fingerprints_of(msae)
    if msae.dtype.itemsize < 4 and (record := TrainingRecord.load(folder)) is not None:
        accepted.add(record.model_sha256)  # rounding the weights changes no names
    for file in files:
        try:
            table = load_names(file, msae.config.num_latents)
        except ValueError as error:
            yield Finding("names", BROKEN, str(error), then)
            continue
        if table.provenance.get("model_sha256") not in (None, *accepted):
            yield Finding("names", BROKEN, f"concepts/{file.name} names the latents of other weights", then)
            continue
        number = len(table.validated()) if table.has_q_values else 0
        have = f"{number:,} of {len(table):,} latents {'has' if number == 1 else 'have'} a validated name"
        text = f"concepts/{file.name}: {have}, by {table.evidence}"
        if weak := too_weak(table.frame):
            text += f"; {weak}"
        yield Finding("names", OK, text, [] if number else then)
    if len(files) > 1:
        used = most_validated(files).name
        text = f"there are {len(files)} tables: other commands use {used}, or the one named with --concepts"
        yield Finding("names", OK, text)


def _data(near: list[Embeddings], places: list[Path], msae: MSAEModel, folder: Path) -> Iterator[Finding]:
    if not any(each.problem is None for each in near):
        backbone = shlex.quote(msae.config.base_model_name_or_path or "BACKBONE")
        place = shlex.quote(str(_own(folder, "embeddings/test")))
        hook_point = msae.config.hook_point
        what = "TEXTS --text_column caption" if hook_point.startswith("text") else "IMAGES --image_column image"
        of = "" if hook_point == "image_embeds" else f" --hook_point {hook_point}"
        command = f"hf-msae extract --backbone {backbone} --dataset {what}{of} --output_dir {place}"
        looked = ", ".join(map(str, places))
        yield Finding(
            "embeddings", MISSING, f"none that fit the model are in {looked}; --data names others", [command]
        )
    for each in near[:_MOST_LISTED]:
        text = f"{each.folder} ({each.metadata.num_rows:,} rows)"
        if each.problem is None:
            yield Finding("embeddings", OK, text)
        elif each.is_given or each.folder.is_relative_to(places[0]):  # others may belong to other models
            yield Finding("embeddings", BROKEN, f"{each.folder}: {each.problem}")


def _own(folder: Path, name: str) -> Path:
    """The place of a file in a model's folder, or in the working directory if the folder is no place to write to."""
    is_cached = any(each.name == "snapshots" and each.parent.name.startswith("models--") for each in folder.parents)
    return Path(name) if is_cached or folder.is_relative_to(Path(__file__).parents[1]) else folder / name


def _uses(folder: Path, msae: MSAEModel, model: str, data: str) -> list[str]:
    """The commands that take an MSAE of its hook point."""
    from ..hub.reading.opening import most_validated

    tables = sorted(folder.glob("concepts/*.parquet"))
    if len(tables) > 1:
        model += f" --concepts {shlex.quote(most_validated(tables).stem)}"
    search = f"hf-msae search {model} --data {data} --row 0"
    if msae.config.hook_point == "text_embeds":
        return [f"hf-msae explain {model} --text TEXT", search]
    if msae.config.hook_point != "image_embeds":
        return [search]
    picture = next(iter(sorted(folder.glob("examples/*.png"))), "PICTURE.png")
    commands = [f"hf-msae explain {model} --image {shlex.quote(str(picture))}", search]
    if not (report := _own(folder, "report.html")).is_file():
        commands.append(f"hf-msae report {model} --data {data} --output {shlex.quote(str(report))}")
    pictures = f"--embeddings {data}" if data != _UNKNOWN else "--dataset PICTURES"
    if " --subfolder " in model or " --revision " in model:  # which the explorer does not take
        return commands
    return [*commands, f"hf-msae demo {model} {pictures}"]
