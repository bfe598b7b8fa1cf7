"""Labels for neurons: `label_neuron` for one, `label_neurons` for many."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from tqdm.auto import tqdm
from transformers.utils import logging

from .._utils.atomic import make_folder
from .._utils.checks import check_integers
from .._utils.images import ImageInput
from ..backbones.extraction.parts import only_run
from .budget import Budget, Meter
from .control import Control
from .gallery import Gallery
from .imagers.base import Imager
from .looks import PictureEmbeds
from .neuron import FunctionNeuron, Images, Neuron
from .proposals import Proposals
from .proposers.base import Proposer
from .result import NeuronLabel, NeuronLabels
from .run import Run
from .scoring import METRICS, Metric
from .search import LEAST_IMAGES, SearchSettings
from .services import ServiceError
from .words import WordEmbeds, load_word_embeds

logger = logging.get_logger(__name__)

ControlImages = Sequence[ImageInput] | Mapping[str, Sequence[ImageInput]] | Control


def label_neuron(
    neuron: Neuron | Callable[[Images], Any],
    proposer: Proposer,
    imager: Imager,
    control: ControlImages,
    iterations: int = 10,
    images_per_concept: int = 5,
    metric: Metric = "auc",
    seed: int = 0,
    budget: Budget | None = None,
    **options: Any,
) -> NeuronLabel:
    """Find what a neuron responds to, in words: the arguments and errors of `label_neurons`, for one neuron.

    Raises:
        ValueError: Also if the neuron fails: its function raises an error, its activations are not one finite number
            for each picture, or all control pictures activate it equally.

    Example:
        >>> found = label_neuron(MSAENeuron(model, 417), proposer, ScenesImager(), photos)
        >>> found.label, found.interval
        ('crescent', (0.97, 1.0))
    """
    searched = (iterations, images_per_concept, metric, seed, budget)
    found = label_neurons([neuron], proposer, imager, control, *searched, **options)
    if found.problems:
        raise ValueError(next(iter(found.problems.values())))
    return found[0]


def label_neurons(
    neurons: Sequence[Neuron | Callable[[Images], Any]],
    proposer: Proposer,
    imager: Imager,
    control: ControlImages,
    iterations: int = 10,
    images_per_concept: int = 5,
    metric: Metric = "auc",
    seed: int = 0,
    budget: Budget | None = None,
    output_dir: str | os.PathLike | None = None,
    start: Sequence[str] | Callable[[Neuron], Sequence[str]] | None = None,
    confirm_images: int = 20,
    num_pairs: int = 10,
    hard_negatives: int = 0,
    word_embeds: WordEmbeds | None = None,
    picture_embeds: PictureEmbeds | None = None,
    paper: bool = False,
    at_once: int | None = None,
    progress: bool = True,
) -> NeuronLabels:
    """Find what neurons respond to, in words, by LINE (Zaigrajew et al., arXiv 2604.08039).

    A proposer names a concept, an imager makes pictures of it, the neuron's activations are compared with those of
    control pictures, and the score goes back to the proposer, which names a better concept. Nothing of the network is
    needed but activations, and labels are not limited to a vocabulary. What was found is measured again on pictures
    and control pictures that the search did not use.

    With `output_dir`, a run that was interrupted continues where it was: answers of the proposer and pictures
    are kept, and shared between neurons, and so are finished labels.

    Args:
        neurons: Functions from a list of RGB images to an activation each, or `MSAENeuron`, `UnitNeuron`.
        proposer: Names concepts.
        imager: Makes pictures of concepts.
        control: Pictures as they come, none of them made by the imager, at least 20 and better several hundred: PIL
            images, paths, or a column of a dataset; or, for `paper=True`, those of each class by name.
        iterations: Number of proposals for each neuron.
        images_per_concept: Pictures of a concept that is tried. The best concepts get up to four times as many.
        metric: What concepts are compared by: "auc", "mad" or "mean"; see `hf_msae.neuron_labels.scoring.score`.
        seed: Random seed.
        budget: What the run may cost; it stops in good order when that is spent.
        output_dir: Folder of what is kept; None keeps nothing.
        start: Concepts to start from, or a function that returns those of a neuron, such as `ZeroShotStart`. By
            default the proposer's, and before them the best classes of control pictures that come by class.
        confirm_images: Fresh pictures that confirm a label, and each meaning of a neuron with several. A neuron that
            many control pictures activate gets up to four times as many.
        num_pairs: Pairs of pictures with and without the label, where the imager makes pairs; 0 for none.
        hard_negatives: Pictures that lack a concept and are otherwise like its own, where the imager makes pairs: half
            of what the concept is compared with in the search. They cost two pictures each, and are made every time.
        word_embeds: Embeds texts, to recognize synonyms and wordings of one meaning. By default WordLlama's, if it is
            installed.
        picture_embeds: Embeds pictures, such as `backbone.image_embeds`, to tell concepts that look different from
            wordings of one. By default the features that the neuron's activation is read from, if it has any; words
            alone have to do for functions. See `hf_msae.neuron_labels.looks.Looks`.
        paper: Search as the published code does, with control pictures by class; see `PaperSearch`.
        at_once: Neurons that are searched together, so that a proposer can answer in batches. By default 8, or 1 if
            the proposer is no language model.
        progress: Whether to show progress bars.

    Returns:
        The labels, in the order of the neurons, and why some neurons have none: one that fails does not keep the
        others from being labeled, and is tried again by the next run in `output_dir`.

    Raises:
        ValueError: An argument is out of range, there are too few control pictures, or another run is writing to
            `output_dir`.
        ServiceError: A service does not answer. What came is kept in `output_dir`, and the error has the labels that
            were found before.
        ImportError: `paper=True` without embeddings of words.
    """
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}; the metrics are {', '.join(METRICS)}")
    check_integers(
        "at_once",
        iterations=(iterations, 0),
        images_per_concept=(images_per_concept, 1),
        seed=(seed, 0),
        confirm_images=(confirm_images, 0),
        num_pairs=(num_pairs, 0),
        hard_negatives=(hard_negatives, 0),
        at_once=(at_once, 1),
    )
    if seed >= 2**32:
        raise ValueError(f"seed must be below 2^32, got {seed}")
    if 0 < confirm_images < LEAST_IMAGES:
        raise ValueError(
            f"confirm_images must be 0 or at least {LEAST_IMAGES}, got {confirm_images}: fewer pictures say nothing"
        )
    chosen = [each if isinstance(each, Neuron) else FunctionNeuron(each) for each in neurons]
    if not chosen:
        raise ValueError("there is no neuron to label")
    if paper and hard_negatives:
        raise ValueError(f"hard_negatives={hard_negatives} and paper=True exclude each other: the paper has none")
    if isinstance(start, str):
        raise ValueError(f"start is a list of concepts, got the text {start!r}")
    if len({neuron.key for neuron in chosen}) < len(chosen):
        raise ValueError("a neuron is given twice, or two functions have the same name: name them with FunctionNeuron")
    same = Counter(neuron.name for neuron in chosen)
    names = [each.name if same[each.name] == 1 else f"{each.name} [{each.key[:6]}]" for each in chosen]
    proposer.check()
    imager.check()
    if word_embeds is None:
        word_embeds = _word_embeds(needed=paper)
    folder = None if output_dir is None else make_folder(output_dir)
    if not isinstance(control, Control):
        control = Control(control, seed, progress)
    with nullcontext() if folder is None else only_run(folder):
        run = Run(
            proposer=proposer,
            imager=imager,
            control=control,
            settings=SearchSettings(int(iterations), int(images_per_concept), metric, int(seed), int(hard_negatives)),
            meter=(meter := Meter(budget, imager.price)),
            folder=folder,
            gallery=Gallery(imager, meter, folder),
            proposals=Proposals(proposer, meter, folder),
            start=start,
            confirm_images=int(confirm_images),
            num_pairs=int(num_pairs),
            word_embeds=word_embeds,
            picture_embeds=picture_embeds,
            paper=paper,
        )
        at_once = at_once or (8 if proposer.is_language_model else 1)
        with tqdm(total=len(chosen) * (iterations + 1), desc="labels", unit="iteration", disable=not progress) as bar:
            failure = None
            try:
                run.all(dict(zip(names, chosen, strict=True)), at_once, bar)
            except ServiceError as error:
                failure = error
        if both := len(run.gallery.drawn & control.hashes):
            logger.warning(
                f"{both} of the {len(run.gallery.drawn)} pictures that the imager took for concepts are control "
                "pictures too: no label can be told from these, so give the imager others, as with `exclude=`"
            )
        found = tuple(run.found[name] for name in names if name in run.found)
        labels = NeuronLabels(found, meter.to_dict(), run.problems)
        if folder is not None:
            labels.save(folder / "labels.json")
        if failure is not None:
            failure.labels = labels
            raise failure
    return labels


def _word_embeds(needed: bool) -> WordEmbeds | None:
    try:
        return load_word_embeds()
    except ImportError:
        if needed:
            raise
        return None
