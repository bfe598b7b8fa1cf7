"""Give every latent of an MSAE a name from a vocabulary or from your own labels, with the evidence for it.

With embeddings of images (--data), a latent is named by the word whose zero-shot scores agree best with its
activations, and the name is tested on other images: is it better than chance, and strong enough? Without images, a
latent is named by the word whose text embedding is closest in direction, which is only a suggestion. With
--label_columns, a latent is named by the label that its activation detects best, and the name is tested on other rows;
this needs neither words nor the backbone. The table is written to the model's folder, where the
other commands, VisionTextMSAE and the model card find it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from .._utils.argument_parser import flag
from .._utils.paths import did_you_mean, refuse_missing_path
from .checks import changed, check_inputs, check_least, check_outputs, refuse_without
from .opening import ModelArguments, command_parser

if TYPE_CHECKING:
    import pandas as pd

    from ..concepts import ConceptTable, Vocabulary

EXAMPLE = """\
  hf-msae name outputs/my-msae --vocabulary words.txt --templates 'a photo of a {}' --data embeddings/train
  hf-msae name outputs/quickstart --vocabulary scenes --data outputs/quickstart/embeddings/test
  hf-msae name outputs/quickstart --data outputs/quickstart/embeddings/test --label_columns red star night"""
_OF_DIRECTIONS = ("direction", "center", "ratio_over", "null", "null_samples")
_OF_WORDS = (
    *("vocabulary_column", "vocabulary_split", "max_words", "templates", "words_by_frequency", "min_letters"),
    *("drop_stop_words", "sensitive_words", *_OF_DIRECTIONS),
)
"""Flags that mean nothing for names from labels."""
_MOST_SHOWN = 30
_GUESSES = "The other commands show these names as guesses"


@dataclass
class NameArguments:
    """Which words or labels to name latents by, and how."""

    _argument_group_name: ClassVar[str] = "naming"

    vocabulary: str | None = flag(
        "Candidate names: a text file with one word per line, a .csv or .tsv table or a dataset (with "
        "--vocabulary_column), or 'scenes', the concepts of the built-in synthetic scenes.",
        None,
    )
    label_columns: list[str] = flag(
        "Columns of --data to name latents by instead of a vocabulary. A column of booleans, or of 0 and 1, is one "
        "label; in a column of strings or classes, every value is a label. Empty cells are left out.",
        [],
    )
    vocabulary_column: str | None = flag(
        "Column that holds the words. Those of a dataset are taken in order of frequency.", None
    )
    vocabulary_split: str | None = flag("Split of the dataset of words.", None)
    max_words: int | None = flag("Number of words to use, from the start of the vocabulary. Defaults to all.", None)
    templates: list[str] = flag(
        "Prompts with one {} for the word; their embeddings are averaged. Defaults to the bare word, or for the "
        "vocabulary 'scenes' to its own prompts.",
        [],
    )
    words_by_frequency: bool = flag(
        "The words come most frequent first. Of words that the images cannot tell apart, the first becomes the name.",
        False,
    )
    min_letters: int = flag("Leave out words with fewer letters than this.", 0)
    drop_stop_words: bool = flag("Leave out English stop words.", False)
    sensitive_words: str | None = flag("Text file of words never to use as names, one per line.", None)
    data: str | None = flag(
        "Embeddings of images. With them, latents are named by the words whose zero-shot scores agree with their "
        "activations, and the names are tested on images that did not choose them. Without them, names come from "
        "directions alone.",
        None,
    )
    split: str | None = flag("Split of the data, if it has several.", None, aliases=("--data_split",))
    embedding_column: str | None = flag(
        "Column that holds the embeddings. Defaults to the one named like the model's hook point.", None
    )
    verify: bool = flag("Compare files of embeddings with their recorded checksums before they are first read.", True)
    direction: Literal["decoder", "decoder+mean", "decoder+bias"] = flag(
        "Direction of a latent that is compared with the words.", "decoder"
    )
    center: bool = flag(
        "Subtract the mean of the vocabulary's embeddings, to reduce the modality gap.", True, aliases=("--centre",)
    )
    ratio_over: Literal["words", "latents"] = flag(
        "What the column ratio divides a name's similarity by: that of the runner-up word, or that of the runner-up "
        "latent.",
        "words",
    )
    null: Literal["vocabulary", "dictionary", "shuffled", "isotropic"] = flag(
        "Distribution of the random directions that names are tested against.", "vocabulary"
    )
    null_samples: int = flag("Number of random directions.", 10_000)
    q: float = flag("False discovery rate at which a name counts as validated.", 0.05)
    seed: int = flag("Random seed of the random directions, and of the split of the data into halves.", 0)
    output: str | None = flag(
        "Parquet file to write the names to. Defaults to concepts/<vocabulary>.parquet, or "
        "concepts/labels.parquet, in the model's folder.",
        None,
        aliases=("--output_file",),
    )

    def __post_init__(self):
        if bool(self.vocabulary) == bool(self.label_columns):
            raise ValueError("say what to name latents by with either --vocabulary or --label_columns")
        if self.label_columns:
            if self.data is None:
                raise ValueError("--label_columns needs the embeddings that have these columns: give --data")
            if given := changed(self, _OF_WORDS):
                raise ValueError(f"--{given[0]} is about a vocabulary: leave it out with --label_columns")
        refuse_without(self, "data", "split", "embedding_column")
        refuse_without(self, "vocabulary_column", "vocabulary_split")
        check_least(self, null_samples=1, min_letters=0)
        if self.max_words is not None:
            check_least(self, max_words=1)
        if not 0 < self.q <= 1:
            raise ValueError(f"q must lie between 0 and 1, got {self.q}")
        if self.output is not None and Path(self.output).suffix != ".parquet":
            raise ValueError(f"--output must end in .parquet, got {self.output}")


def read_vocabulary(args: NameArguments) -> Vocabulary:
    """Read the words that the flags ask for."""
    from ..backbones.image_text_data import open_dataset
    from ..concepts import Vocabulary

    templates, path = args.templates or ["{}"], Path(args.vocabulary).expanduser()
    is_list = path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".txt")
    if args.vocabulary_split and (is_list or args.vocabulary == "scenes"):
        raise ValueError(f"--vocabulary_split is of a dataset, which {args.vocabulary} is not: leave it out")
    if args.vocabulary == "scenes" and args.vocabulary_column:
        raise ValueError("the vocabulary 'scenes' has no columns: leave --vocabulary_column out")
    if args.vocabulary == "scenes":
        found = Vocabulary.of_scenes()
        found = Vocabulary(found.words[: args.max_words], args.templates or found.templates, found.order)
    elif is_list or (path.is_file() and args.vocabulary_column is None):
        found = Vocabulary.from_file(path, templates, args.max_words, args.vocabulary_column)
    elif args.vocabulary_column is not None:
        dataset = open_dataset(args.vocabulary, args.vocabulary_split)
        found = Vocabulary.from_dataset(dataset, args.vocabulary_column, templates, args.max_words)
    else:
        raise FileNotFoundError(f"there is no file {args.vocabulary}; for a dataset, give --vocabulary_column")
    if args.words_by_frequency:
        found.order = "frequency"
    if args.min_letters or args.drop_stop_words or args.sensitive_words:
        unwanted = Vocabulary.from_file(args.sensitive_words).words if args.sensitive_words else ()
        found = found.filtered(args.min_letters, args.drop_stop_words, unwanted)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    parser = command_parser("name", [ModelArguments, NameArguments], __doc__, EXAMPLE)
    source, args = parser.parse(argv)

    from ..concepts import ConceptTable, name_by_labels, name_latents
    from ..concepts.agreement import check_enough
    from ..concepts.codes import open_embeddings
    from ..concepts.line_labels import with_line_labels_of
    from ..concepts.naming import check_options

    with parser.reporting_errors():
        output = _output_file(args, source)
        check_outputs([], str(output))
        earlier = ConceptTable.load(output) if output.is_file() else None
        check_inputs(args.data)
        vocabulary = None if args.vocabulary is None else read_vocabulary(args)
        if vocabulary is not None:
            check_options(vocabulary, args.center, args.direction, args.ratio_over, args.null, args.null_samples)
        msae, concepts = source.open_msae()
        hook_point = msae.config.hook_point
        if vocabulary is not None and ".layers." in hook_point:
            raise ValueError(f"words can only name pooled embeddings, but the MSAE is of {hook_point}")
        embeddings = None
        if args.data is not None:
            embeddings = open_embeddings(msae, args.data, args.embedding_column, args.split, args.verify)
            if vocabulary is not None:
                check_enough(len(embeddings), embeddings.source)
        model = None if vocabulary is None else source.add_backbone(msae, concepts)
        how = {"data": args.data}
        if model is None:
            table = name_by_labels(msae, embeddings, args.label_columns, args.seed, progress=not source.disable_tqdm)
        else:
            table = name_latents(
                msae,
                vocabulary,
                vocabulary.embed(model.backbone),
                embeddings,
                **{name: getattr(args, name) for name in (*_OF_DIRECTIONS, "seed")},
                progress=not source.disable_tqdm,
            )
            backbone = model.backbone
            how |= {"backbone": backbone.name_or_path, "backbone_revision": backbone.revision}
            how["vocabulary"] = args.vocabulary
        table = replace(table, provenance=table.provenance | how)
        if earlier is not None:
            table = with_line_labels_of(table, earlier)
        table.save(output)
    if vocabulary is None:
        _print_labels(table, args.q)
    else:
        _print_table(table, vocabulary, args.q)
    print(f"\nThe table is in {output}")
    if (output.parent.parent / "README.md").exists():
        print("The next `hf-msae push` adds these names to the model card")
    if output.parent.name == "concepts":
        _print_other_tables(output)


def _output_file(args: NameArguments, source: ModelArguments) -> Path:
    if args.output is not None:
        return Path(args.output).expanduser()
    refuse_missing_path(source.model)
    folder = Path(source.model).expanduser() / (source.subfolder or "")
    if source.subfolder and folder.parent.is_dir() and not folder.exists():
        raise FileNotFoundError(f"{source.model} has no folder {source.subfolder}{did_you_mean(folder)}")
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder that names can be written to: give a file with --output")
    return folder / "concepts" / f"{Path(args.vocabulary or 'labels').stem}.parquet"


def _print_other_tables(output: Path) -> None:
    """Name the other tables of a folder, and the one that other commands use."""
    from ..hub.reading.opening import most_validated

    others = [file for file in sorted(output.parent.glob("*.parquet")) if file != output]
    if others:
        best = most_validated(sorted([output, *others]))
        names = ", ".join(file.name for file in others)
        print(
            f"The folder also holds {names}: other commands use {best.name}, since no other has more validated "
            "names, unless --concepts names another"
        )


def _print_rows(rows: pd.DataFrame, columns: Sequence[str]) -> None:
    from ..concepts.table import to_text

    print(to_text(rows.head(_MOST_SHOWN), "{:.3f}", columns))
    if len(rows) > _MOST_SHOWN:
        print(f"... and {len(rows) - _MOST_SHOWN} more")


def _print_number(table: ConceptTable, q: float, used: int, of_all: str) -> None:
    """Say how many latents have a validated name, and how many of all words or labels are one."""
    from ..concepts.validation import rule

    number = len(table.validated(q))
    print(
        f"\n{number} of {len(table)} latents {'has' if number == 1 else 'have'} a validated name "
        f"({rule(table.frame, q)}), and {used} of {of_all} {'names' if used == 1 else 'name'} one of them"
    )


def _print_labels(table: ConceptTable, q: float) -> None:
    from ..concepts.validation import too_weak

    validated, best = table.validated(q), table.best()
    best = best.assign(validated=best["latent"].isin(validated["latent"]))
    best = best[best["validated"] | (best["polarity"] > 0)]  # the absence of a label only where it is detected well
    if len(best):
        columns = ["latent", "name", "validated", "auroc", "auroc_low", "auroc_high", "num_positive", "q_value"]
        _print_rows(best.astype({"num_positive": int}), [*columns, "runner_up"])
    labels = table.provenance["labels"]
    if missing := [name for name in labels if name not in set(table.frame["name"])]:
        print(f"No latent is named by these labels: {', '.join(missing[:_MOST_SHOWN])}")
    detected = validated["name"][validated["polarity"] > 0].nunique()
    _print_number(table, q, detected, f"{len(labels)} labels")
    if weak := too_weak(table.frame, q):
        print(weak)
    if not len(validated):
        print(f"{_GUESSES}. More pictures, or other label columns, may help")


def _print_table(table: ConceptTable, vocabulary: Vocabulary, q: float) -> None:
    from ..concepts.validation import too_weak, why_none

    validated, best = table.validated(q), table.best_validated(q)
    shown, are_validated = table.best_available(q)
    columns = ["latent", "name", "validated", "agreement" if "agreement" in shown else "similarity", "runner_up"]
    columns += ["q_value", "zero_shot_auroc", "zero_shot_auroc_low", "activation_name", "agrees", "num_active"]
    _print_rows(shown.assign(validated=are_validated), columns)
    _print_number(table, q, len(best), f"{len(vocabulary)} words")
    if "agrees" in validated and len(validated):
        print(f"For {int(validated['agrees'].sum())} of these latents, the name by activations is the same")
    if not len(validated):
        print(f"None is validated: {why_none(table.frame, q)}")
    elif weak := too_weak(table.frame, q):
        print(weak)
    if "agreement" not in table.frame:
        print("These names come from directions alone, so take them as suggestions: --data tests names on pictures")
    elif not len(validated):
        print(f"{_GUESSES}. More pictures, words that fit them, or --label_columns may help")
