"""Label latents of an MSAE with an open vocabulary, by LINE: propose a concept, draw it, score it, and repeat.

A proposer names a concept, an imager makes pictures of it, the latent's activations are compared with those on control
pictures, and the scores go back to the proposer, which names a better concept. Labels are confirmed on pictures that
the search did not use. They are added to the model's table of names, where the report and the explorer find them.
An interrupted command continues where it stopped, because proposals and pictures are kept in the output folder.
If a latent fails, the others are still labeled; the exit code is 1 if no latent gets a label.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from .._utils.atomic import make_folder
from .checks import check_inputs
from .label_arguments import LEAST_ACTIVE, LabelArguments
from .opening import NamedModelArguments, command_parser
from .pictures import NO_TRUTH, KnownPictures, Pictures

if TYPE_CHECKING:
    from ..concepts import ConceptTable, Vocabulary
    from ..neuron_labels import Imager, NeuronLabels, Proposer
    from ..neuron_labels.control import Control
    from ..neuron_labels.evaluation import LabelChecks
    from ..vision_text import VisionTextMSAE

EXAMPLE = """\
  hf-msae label scenes-image --latents 86 195 842 --control scenes:test:1000 --vocabulary scenes --imager scenes \\
      --output outputs/labels

  hf-msae label MODEL --all_active --control photos/ --proposer transformers:meta-llama/Llama-3.1-8B-Instruct \\
      --imager diffusers:stabilityai/sdxl-turbo --device cuda --output outputs/labels

  hf-msae label MODEL --latents 12 --control photos/ --proposer inference:openai/gpt-oss-120b --budget_tokens 50000 \\
      --imager retrieval --images more-photos/ --output outputs/labels"""

_NUM_FIRST = 5
_SEARCH = ("iterations", "images_per_concept", "metric", "seed", "confirm_images", "hard_negatives")
_BUDGETS = ("calls", "tokens", "images", "seconds", "cost")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    parser = command_parser("label", [NamedModelArguments, LabelArguments], __doc__, EXAMPLE)
    source, args = parser.parse(argv)
    from ..neuron_labels.services import ServiceError

    parser.kept_in = args.output
    try:
        with parser.reporting_errors():
            _label(source, args)
    except ServiceError as error:
        kept = f"what came is kept in {args.output}, and the same command goes on from there"
        parser.exit(1, f"{parser.prog}: error: {error}; {kept}\n")


def _label(source: NamedModelArguments, args: LabelArguments) -> None:
    """Label the latents, write and print what was found, and exit with 1 if nothing was."""
    from .._utils.fingerprint import model_fingerprint
    from ..concepts import ConceptTable
    from ..neuron_labels import Budget, MSAENeuron, label_neurons
    from ..neuron_labels.control import Control
    from ..neuron_labels.services import ServiceError
    from ..plotting import save_figure

    budget = Budget(**{name: getattr(args, f"budget_{name}") for name in _BUDGETS})
    check_inputs(args.vocabulary if args.vocabulary != "scenes" else None)
    words = None if args.vocabulary is None else _words(args)
    output = make_folder(Path(args.output).expanduser())
    table_file = _table_file(source)
    pictures = Pictures.open(args.control, args.control_split, args.image_column, args.max_control)
    model = source.add_backbone(*source.open_msae())
    for latent in args.latents:
        MSAENeuron(model, latent, args.k)  # raises for one that is not there, before anything is loaded
    control = Control(pictures.images, args.seed, progress=not source.disable_tqdm)
    known = KnownPictures.of_control(control, pictures)
    if args.truth is not None:
        known = KnownPictures.open(args.truth, args.truth_split, args.image_column, control)
    proposer = _proposer(args, source.device, words)
    proposer.check()
    imager = _imager(args, model, [control, known.control], source.device)
    imager.check()
    chosen = args.latents or _active(model, control, args.k)
    names = model.concepts
    if names is None:
        none, nan = ([value] * model.msae.config.num_latents for value in (None, float("nan")))
        names = ConceptTable.from_columns(none, nan, none, nan)
        names.provenance["model_sha256"] = model_fingerprint(model.msae)
    if table_file is None:
        table_file = output / "concepts.parquet"
        names = _with_earlier_labels(names, table_file)
    failure = None
    try:
        found = label_neurons(
            [MSAENeuron(model, latent, args.k) for latent in chosen],
            proposer,
            imager,
            control,
            **{name: getattr(args, name) for name in _SEARCH},
            budget=budget,
            output_dir=output,
            start=_start(args, model, control, words, proposer),
            progress=not source.disable_tqdm,
        )
    except ServiceError as error:
        if not error.labels:
            raise
        failure, found = error, error.labels
    checks = known.check(found, model, args.k, args.seed)
    if checks is not None:
        checks.save(output / "checks.json")
    else:  # those of an earlier run would be taken for this one's
        (output / "checks.json").unlink(missing_ok=True)
    if len(found):
        found.add_to(names, checks).save(table_file)
    for label in found.labels[: args.figures]:
        save_figure(label.plot(), output / "figures" / f"{label.neuron.replace(' ', '-')}.png")
    _print(found, checks, proposer)
    print(f"Labels, history and figures: {output}")
    if len(found):
        print(f"Table of names and labels: {table_file}")
    if failure is not None:
        raise failure
    if not any(label.guess for label in found.labels):  # nothing came of any latent
        sys.exit(1)


def _table_file(source: NamedModelArguments) -> Path | None:
    """Return the table of names that the labels are added to: the one that commands read, if it is a file here."""
    from ..hub.reading.opening import concept_files, most_validated

    if source.concepts is not None and Path(source.concepts).expanduser().is_file():
        return Path(source.concepts).expanduser()
    folder = Path(source.model).expanduser()
    if not folder.is_dir():
        return None
    files = concept_files(folder, subfolder=source.subfolder)
    if source.concepts is not None:  # a name; one that is not there is an error when the model is opened
        return next((file for file in files if file.stem == source.concepts.removesuffix(".parquet")), None)
    return most_validated(files) or folder / (source.subfolder or "") / "concepts" / "labels.parquet"


def _proposer(args: LabelArguments, device: str | None, words: Vocabulary | None = None) -> Proposer:
    from ..neuron_labels import InferenceProposer, TransformersProposer, VocabularyProposer
    from ..neuron_labels.words import load_word_embeds

    kind, _, name = args.proposer.partition(":")
    if kind == "transformers":
        folder, _, file = name.rpartition("/") if name.endswith(".gguf") else (name, "", None)
        return TransformersProposer(folder or ".", gguf_file=file, device=device)
    if kind == "inference":
        place = {"base_url": args.base_url, "api_key_variable": args.api_key_variable}
        return InferenceProposer(name, **place, prices=(args.price_input, args.price_output))
    if kind == "vocabulary":
        return VocabularyProposer(words, load_word_embeds())
    raise ValueError(f"--proposer {args.proposer} is none that this command can make")


def _imager(args: LabelArguments, model: VisionTextMSAE, used: list[Control], device: str | None) -> Imager:
    from .._utils.images import to_rgb
    from ..neuron_labels import DiffusersImager, InferenceImager, RetrievalImager, ScenesImager
    from ..neuron_labels.imagers.base import image_sha256

    kind, _, name = args.imager.partition(":")
    style = args.style or "plain"
    if kind == "scenes":
        return ScenesImager(args.seed)
    if kind == "diffusers":
        return DiffusersImager(name, style=style, device=device)
    if kind == "inference":
        place = {"base_url": args.base_url, "api_key_variable": args.api_key_variable}
        return InferenceImager(name, **place, style=style, price=args.price_image)
    exclude = {image_sha256(to_rgb(picture)) for each in used for picture in each.images}
    images = Pictures.open(args.images, args.images_split, args.image_column).images
    return RetrievalImager(images, model.backbone, exclude=exclude, progress=None if used[0].progress else False)


def _start(
    args: LabelArguments, model: VisionTextMSAE, control: Control, words: Vocabulary | None, proposer: Proposer
) -> Callable[..., list]:
    """Return a function that gives the concepts which the search for a latent starts from."""
    from ..neuron_labels import ZeroShotStart

    names = _names(model) if args.start_from_names else {}
    fitting = None
    if words is not None and model.backbone.has_text_tower and model.backbone.tokenizer is not None:
        fitting = ZeroShotStart(control, model.backbone, words)

    def start(neuron: Any) -> list[str]:
        own = [*names.get(neuron.latent, ()), *(fitting(neuron) if fitting else ())]
        return [*own, *proposer.first(_NUM_FIRST, args.seed)]

    return start


def _words(args: LabelArguments) -> Vocabulary:
    from ..concepts import Vocabulary

    if args.vocabulary == "scenes":
        return Vocabulary.of_scenes()
    return Vocabulary.from_file(args.vocabulary, column=args.vocabulary_column)


def _active(model: VisionTextMSAE, control: Control, k: int | None) -> list[int]:
    """Return the latents that enough of the control pictures activate."""
    import numpy as np

    from ..neuron_labels import MSAENeuron

    neuron = MSAENeuron(model, 0, k)
    counts = sum((codes > 0).sum(axis=0) for codes in neuron.codes(control.features(neuron)))
    chosen = np.flatnonzero(counts >= LEAST_ACTIVE).tolist()
    if not chosen:
        raise ValueError(f"no latent is activated by at least {LEAST_ACTIVE} control pictures: give more of them")
    return chosen


def _names(model: VisionTextMSAE) -> dict[int, list[str]]:
    from ..neuron_labels.words import concepts_among

    if model.concepts is None:
        return {}
    frame = model.concepts.frame
    rows = zip(frame["latent"], frame["name"], frame["runner_up"], strict=True)
    return {latent: concepts_among(word for word in words if isinstance(word, str)) for latent, *words in rows}


def _with_earlier_labels(names: ConceptTable, file: Path) -> ConceptTable:
    """Return the table that an earlier run wrote, if it has the same names: labels of other latents stay."""
    from ..concepts import ConceptTable

    def named(table: ConceptTable) -> list[list[Any]]:
        return table.frame[["latent", "name"]].astype(object).fillna("").to_numpy().tolist()

    if file.is_file() and named(earlier := ConceptTable.load(file)) == named(names):
        return earlier
    return names


def _print(found: NeuronLabels, checks: LabelChecks | None, proposer: Proposer) -> None:
    for label in found.labels:
        print(label.verdict())
        if checks is not None:
            print(indent(checks.describe(label.neuron), "  "))
    if early := [label.stopped for label in found.labels if label.stopped]:
        print(f"{len(early)} of {len(found)} searches ended early, and go on in the next run: {early[0]}")
    for name, problem in found.problems.items():
        print(f"{name}: no label: {problem}")
    print(f"\n{found.verdict()}")
    if len(found):
        print(checks.verdict() if checks is not None else f"No label was checked on real pictures: {NO_TRUTH}")
    if not proposer.is_language_model:
        print("No language model was asked: labels can only be words of the vocabulary")
    spent = found.spent
    calls = f"{spent['calls']:,.0f} calls"
    if spent["calls"]:
        calls += f" ({spent['input_tokens']:,.0f} tokens of prompts and {spent['output_tokens']:,.0f} of answers)"
    cost = f", at a cost of {spent['cost']:,.2f}" if spent["cost"] else ""
    print(f"This run made {spent['images']:,.0f} pictures, with {calls}, in {spent['seconds']:,.0f} s{cost}")
