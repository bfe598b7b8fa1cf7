"""Find faults of a model of hyperspectral patches or of a classifier of embeddings: shortcuts, blind spots, and more.

The model is fitted in folds to features of the patches. Audits test whether it relies on the farm or the instrument
instead of the soil; for which targets, fields and values it fails; whether single bands leak or drift; which bands its
predictions are based on, and how few are enough; how small perturbations mislead it; and what depends on the random
seed. Findings are significant after a correction for all tests. Finished audits are kept, so an interrupted run
continues with the others.

With --msae, the data is embeddings, and the model is a classifier of them: predictions are attributed to concepts, and
concepts are changed, pruned and attacked.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .._utils.argument_parser import MSAEArgumentParser, flag
from .._utils.atomic import atomic_path, check_writable, make_folder
from .._utils.json_files import read_json
from .._utils.paths import file_name
from .._utils.wording import counted
from .checks import changed, check_least

if TYPE_CHECKING:
    from ..hyperspectral import Patches, RedTeamReport

EXAMPLE = """\
  hf-msae red-team synthetic --blind_spots leak range --model pls --output outputs/red-team

  hf-msae red-team soils --targets pH --model pls --output outputs/soils

  hf-msae red-team fields/train_data --model my_models.py:make_forest --features eagle_eyes --output outputs/fields

  hf-msae red-team outputs/quickstart/embeddings/test --msae outputs/quickstart --label star --groups night red \\
    --output outputs/star"""
BUILT_IN = ("synthetic", "soils")
OF_PATCHES = ("ground_truth", "group_table", "wavelengths", "wavelength_unit", "unit", "mask_means", "fields")
"""What is passed on to `load_patches`."""
_OF_PATCHES_ALONE = ("only", "leave_out", "features", "targets", "invalid")
_OF_EMBEDDINGS_ALONE = ("embedding_column", "expected")
_FIGURES = (
    *("predictions", "shortcuts", "pulls", "deciles", "wavelengths", "bands", "attributions", "concepts"),
    *("single_bands", "pruning", "attacks"),
)
FIELD_SIZE = "field_size"


@dataclass
class RedTeamArguments:
    """Which model, what it is tested on, and where results go."""

    _argument_group_name: ClassVar[str] = "red team"

    data: str = flag(
        "Patches: a folder in the layout of the HYPERVIEW challenge or of ENVI headers, a dataset folder or Hub id, "
        "`synthetic` for fields whose causes are known, or `soils` for real spectra of eight farms. With --msae, "
        "embeddings, as `hf-msae extract` writes them."
    )
    output: str = flag("Folder of the results: report.html, report.json, findings.yaml, figures, and finished audits.")
    model: str | None = flag(
        "Model: forest, extra_trees, boosting, pls, ridge, knn or hybrid (the model of the HYPERVIEW winners, with "
        "its own features), or file.py:name (or module:name) of your own scikit-learn model, or of a function "
        "without arguments that creates one. With --msae, logistic, your own model, or a safetensors file of a "
        "linear layer, which is not fitted again. Defaults to forest, and to logistic with --msae.",
        None,
    )
    msae: str | None = flag(
        "MSAE of the embeddings: a folder or Hub id, or the name of a released one. Its names of latents are used.",
        None,
    )
    label: str | None = flag("Column of the embeddings' labels, which the classifier predicts.", None)
    embedding_column: str | None = flag(
        "Column that holds the embeddings. Defaults to the one named like the MSAE's hook point.", None
    )
    verify: bool = flag("Compare files of embeddings with their recorded checksums before they are first read.", True)
    expected: list[str] = flag(
        "Names of concepts that the classifier may depend on. Defaults to the names of the label and its classes.", []
    )
    features: str = flag(
        "Features for the model: mean, the mean spectrum of a field, or eagle_eyes, 2,400 features of the HYPERVIEW "
        "winners. A model of patches, such as hybrid, computes its own.",
        "mean",
    )
    targets: list[str] = flag("Targets to predict. Defaults to all.", [])
    groups: list[str] = flag(
        "Columns whose groups are left out in turn, such as farm: columns of the ground truth or of --group_table, "
        "or field_size; for embeddings, columns of their dataset. Defaults to all known ones for patches, and to "
        "none for embeddings.",
        [],
    )
    group_table: str | None = flag(
        "CSV file with more columns of groups for patches, such as farm, instrument or date, and a column "
        "sample_index.",
        None,
    )
    audits: list[str] = flag(
        "Audits to run: shortcuts, performance, bands, attributions, pruning, attacks, concepts (with --msae), "
        "stability. Defaults to all.",
        [],
    )
    ground_truth: str | None = flag("CSV file with targets and groups, if it is not next to the patches.", None)
    wavelengths: str | None = flag("File with the wavelengths of the bands, if it is not next to the patches.", None)
    wavelength_unit: str | None = flag(
        "Unit of the wavelengths: nm, um, angstrom or m. Defaults to the unit in their file, or the one that fits "
        "their size.",
        None,
    )
    unit: str | None = flag("Unit of the values: digital_numbers, percent or reflectance; see load_patches.", None)
    mask_means: str | None = flag(
        "What True in a mask means: outside or inside the field. Defaults to outside, with an error if that looks "
        "wrong.",
        None,
    )
    fields: str | None = flag(
        "Labels of the fields of a scene (one ENVI header as the data): a .npy file or an ENVI header.", None
    )
    only: list[str] = flag("Ids of the patches to use, or a file with one id per line. Defaults to all.", [])
    leave_out: list[str] = flag("Ids of patches to leave out, or a file with one id per line.", [])
    invalid: str = flag("What to do with invalid patches: raise an error, or drop them.", "raise")
    split: str | None = flag("Split of the dataset, if it has several. Defaults to train for patches.", None)
    num_fields: int = flag("Number of synthetic fields.", 300)
    blind_spots: list[str] = flag("Blind spots to plant in synthetic fields: range, outliers, drift, leak, farm.", [])
    num_folds: int = flag("Number of cross-validation folds.", 5)
    num_explained: int = flag("Maximum number of rows whose predictions are explained.", 200)
    num_attacked: int = flag("Maximum number of patches to attack.", 60)
    num_seeds: int = flag(
        "Number of random seeds of the stability audit, which also uses twice as many bootstrap samples.", 4
    )
    alpha: float = flag("Probability of at least one false finding, over all tests.", 0.05)
    seed: int = flag("Random seed of synthetic fields, folds, draws and the model.", 0)
    disable_tqdm: bool = flag("Hide the progress bars, which are only shown on a terminal.", False)

    def __post_init__(self):
        if self.features not in ("mean", "eagle_eyes"):
            raise ValueError(f"features must be mean or eagle_eyes, got {self.features!r}")
        if self.blind_spots and self.data != "synthetic":
            raise ValueError("--blind_spots are planted in synthetic fields: the data must be `synthetic`")
        if (self.msae is None) != (self.label is None):
            raise ValueError("give both --msae and --label or neither: together they say that the data are embeddings")
        of_files = [name for name in OF_PATCHES if getattr(self, name)]
        if of_files and (self.msae is not None or self.data in BUILT_IN):
            what = "embeddings" if self.msae is not None else self.data
            raise ValueError(f"--{of_files[0]} is about files of patches, and {what} are none: leave it out")
        if self.msae is not None and (given := changed(self, _OF_PATCHES_ALONE)):
            raise ValueError(f"--{given[0]} is about patches, and the data are embeddings: leave it out")
        if self.msae is None and (given := changed(self, _OF_EMBEDDINGS_ALONE)):
            raise ValueError(f"--{given[0]} is about embeddings: name their MSAE with --msae, or leave it out")
        if self.data in BUILT_IN and (given := changed(self, ["invalid", "split"])):
            raise ValueError(f"--{given[0]} is about files of patches, and {self.data} are none: leave it out")
        if self.data != "synthetic" and changed(self, ["num_fields"]):
            raise ValueError("--num_fields is the number of synthetic fields: the data must be `synthetic`")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}")
        check_least(self, num_fields=50, num_folds=2, num_explained=2, num_attacked=2, num_seeds=2)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    kinds, prog = [RedTeamArguments], "hf-msae red-team"
    parser = MSAEArgumentParser(kinds, __doc__, EXAMPLE, prog=prog, first_words=["data"])
    (args,) = parser.parse(argv)

    from ..hyperspectral import AUDITS

    parser.kept_in = args.output
    with parser.reporting_errors():
        if unknown := [name for name in args.audits if name not in AUDITS]:
            raise ValueError(f"there is no audit {unknown[0]!r}; the audits are {', '.join(AUDITS)}")
        check_writable(make_folder(args.output) / "report.json")
        options = {
            "audits": args.audits or list(AUDITS),
            "output_dir": args.output,
            "progress": not args.disable_tqdm,
            **{name: getattr(args, name) for name in ("num_folds", "num_explained", "num_attacked", "num_seeds")},
            "alpha": args.alpha,
            "seed": args.seed,
        }
        with naming_lines_of(args.model or ""):
            report = of_patches(args, options) if args.msae is None else of_embeddings(args, options)
        words = sys.argv[1:] if argv is None else argv
        write(report, args.output, shlex.join([*prog.split(), *words]))
    remarks = "".join(f"\n- {remark}" for remark in report.remarks) + "\n" * bool(report.remarks)
    print(f"{report}\n{remarks}\nThe page, tables and figures are in {args.output}")


@contextmanager
def naming_lines_of(model: str) -> Iterator[None]:
    """Context in which an error that a model's own file causes becomes a ValueError that names the file and line."""
    try:
        yield
    except Exception as error:
        file = Path(model.rpartition(":")[0]).expanduser().resolve()
        frames = traceback.extract_tb(error.__traceback__)
        places = [(each.filename, each.lineno) for each in frames]
        if isinstance(error, SyntaxError):
            places.append((error.filename, error.lineno))
        lines = [line for name, line in places if name and Path(name).resolve() == file]
        if not lines:
            raise
        raise ValueError(f"{file}, line {lines[-1]}: {type(error).__name__}: {error}") from error


def of_patches(args: RedTeamArguments, options: dict[str, Any]) -> RedTeamReport:
    """Red team a model of patches."""
    from ..hyperspectral import EagleEyesFeatures, MeanSpectrum, red_team
    from ..hyperspectral.from_patches import takes_patches
    from ..hyperspectral.models import make_model

    model = make_model(args.model or "forest", args.seed)
    patches = open_patches(args)
    transformer = EagleEyesFeatures() if args.features == "eagle_eyes" else MeanSpectrum()
    sizes = patches.size_classes
    by_size = {FIELD_SIZE: sizes} if args.groups or len(set(sizes)) > 1 else {}
    groups = chosen("groups", {**patches.groups, **by_size}, args.groups)
    with_features = takes_patches(model)
    features = "features of the model" if with_features else f"{args.features} features"
    targets = chosen("targets", patches.targets, args.targets)
    left_out = f" ({counted(len(patches.dropped), 'invalid one')} left out)" if patches.dropped else ""
    return red_team(
        model,
        patches,
        patches.targets[list(targets)],
        groups,
        transformer=None if with_features else transformer,
        model_name=args.model,
        data=f"{len(patches):,} patches of {args.data}{left_out}, {features}",
        **options,
    )


def of_embeddings(args: RedTeamArguments, options: dict[str, Any]) -> RedTeamReport:
    """Red team a classifier of embeddings."""
    from ..bias.classifiers import load_linear_layer
    from ..concepts.codes import open_embeddings
    from ..hub.reading.opening import concepts_beside, load_msae
    from ..hyperspectral import red_team
    from ..hyperspectral.models import make_model

    msae, concepts = load_msae(args.msae), concepts_beside(args.msae)
    embeddings = open_embeddings(msae, args.data, args.embedding_column, args.split, args.verify)
    if (args.model or "").endswith(".safetensors"):
        model = load_linear_layer(args.model, msae.config.d_in)
    else:
        model = make_model(args.model or "logistic", args.seed)
    return red_team(
        model,
        embeddings,
        args.label,
        args.groups,
        features=concepts,
        msae=msae,
        expected=args.expected or None,
        model_name=args.model,
        data=f"{len(embeddings):,} embeddings of {args.data}, labels {args.label}",
        **options,
    )


def open_patches(args: RedTeamArguments) -> Patches:
    """Open the patches that the arguments name."""
    from ..hyperspectral import load_patches, load_soil_spectra, make_patches
    from ..hyperspectral.ground_truth import chosen_rows

    only, leave_out = (names_or_file(names) for names in (args.only, args.leave_out))
    if args.data in BUILT_IN:
        is_made = args.data == "synthetic"
        patches = (
            make_patches(args.num_fields, args.seed, blind_spots=args.blind_spots) if is_made else load_soil_spectra()
        )
        return patches[chosen_rows(patches.ids, only, leave_out, args.data)]
    patches = load_patches(
        args.data,
        targets=args.targets or None,
        groups=[name for name in args.groups if name != FIELD_SIZE] or None,
        only=only,
        leave_out=leave_out,
        invalid=args.invalid,
        split=args.split or "train",
        progress=not args.disable_tqdm,
        **{name: getattr(args, name) for name in OF_PATCHES},
    )
    if patches.targets is None:
        raise ValueError(f"{args.data} has no targets: name a CSV file with --ground_truth")
    return patches


def names_or_file(given: list[str]) -> list[str] | str | None:
    """Return names, or the one file that they are in, or None if there are none."""
    return given[0] if len(given) == 1 and Path(given[0]).expanduser().is_file() else given or None


def chosen(what: str, known: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the columns with some names, or all.

    Raises:
        ValueError: There is no such column.
    """
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{what} has no {unknown[0]!r}; there are {', '.join(map(str, known))}")
    return {name: known[name] for name in names or known}


def write(report: RedTeamReport, output: str, command: str) -> None:
    """Write everything about a run, finished or read again."""
    from ..plotting import save_figure
    from ..report import write_red_team_report

    folder = Path(output).expanduser()
    make_folder(folder / "tables")
    try:
        earlier = read_json(folder / "report.json") or {}
    except ValueError:  # it is about to be replaced
        earlier = {}
    for name in set(earlier.get("tables", ())) - report.tables.keys():
        (folder / "tables" / file_name(f"{name}.csv")).unlink(missing_ok=True)
    for name in _FIGURES if earlier else ():
        (folder / "figures" / f"{name}.png").unlink(missing_ok=True)
    report.to_json(folder / "report.json")
    report.to_yaml(folder / "findings.yaml")
    for name, table in {"findings": report.to_pandas(), **report.tables}.items():
        file = folder / "tables" / f"{name}.csv"
        if table.empty and name != "findings":
            file.unlink(missing_ok=True)  # of an earlier run
            continue
        with atomic_path(file) as path:
            table.to_csv(path, index=False)
    for name, figure in report.figures().items():
        save_figure(figure, folder / "figures" / f"{name}.png")
    write_red_team_report(folder / "report.html", report, command)
