"""Evaluate an MSAE on a dataset at every level, in one pass and with memory independent of the data's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .._utils.checks import check_integers
from .._utils.deprecation import renamed_arguments
from .._utils.evaluating import evaluation_mode
from .._utils.fingerprint import model_fingerprint
from ..model.activations import FAMILIES
from .alignment import CknnaAccumulator, Neighborhood, smallest_batch
from .classification import ClassificationAccumulator, LinearClassifier, number_labels
from .dictionary import decoder_orthogonality
from .level import EvaluationBatch, LevelAccumulator
from .levels import choose_levels, decoded_levels
from .measured_data import describe_embeddings
from .reconstruction import ReconstructionAccumulator
from .result import EvaluationResult

MOST_ROWS = 50_000
"""Rows that training and reports measure where nobody says how many: measuring a million rows at every level of a
large dictionary takes longer than training on them."""

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel


def measurable_rows(embeddings: EmbeddingDataset, number: int, seed: int) -> EmbeddingDataset:
    """Draw at most `number` rows at random, without those that `leave_out_unmeasurable` leaves out."""
    return leave_out_unmeasurable(embeddings.sample(number, seed))[0]


def leave_out_unmeasurable(
    embeddings: EmbeddingDataset, encoder_embeds: EmbeddingDataset | None = None
) -> tuple[EmbeddingDataset, EmbeddingDataset | None]:
    """Leave out rows that have the same value in every column, and those that are zero for another encoder.

    Some metrics are undefined for them, so `evaluate_msae` refuses them. They do no harm otherwise, so a few, such as
    zeros in place of missing pictures, must not cost a finished run, a report or a user their figures; a warning tells
    their number.
    """
    from .._utils.acceleration import main_process_logger  # here, since accelerate takes a second

    measurable = torch.cat([(x != x[:, :1]).any(1) for x in embeddings.batches(4096)])
    problem = "where every column has the same value"
    if encoder_embeds is not None:
        measurable &= torch.cat([x.any(1) for x in encoder_embeds.batches(4096)])
        problem += f", or where {encoder_embeds.source} has zeros"
    if measurable.all() or not measurable.any():  # without any row, the evaluation says what is wrong
        return embeddings, encoder_embeds
    main_process_logger(__name__).warning(
        f"{embeddings.source}: the figures leave out {int((~measurable).sum())} of the {len(embeddings)} rows that "
        f"are measured, {problem}"
    )
    rows = measurable.nonzero()[:, 0].numpy()
    return embeddings.keep(rows), encoder_embeds and encoder_embeds.keep(rows)


@renamed_arguments(acts="embeddings")
@torch.no_grad()
def evaluate_msae(
    model: MSAEModel,
    embeddings: EmbeddingDataset,
    ks: Sequence[int] | None = None,
    batch_size: int = 4096,
    cknna_batch_size: int | None = 1024,
    progress: bool = True,
    accelerator: Accelerator | None = None,
    classifiers: Mapping[str, LinearClassifier] | None = None,
    labels: Mapping[str, Sequence | np.ndarray | torch.Tensor] | None = None,
    encoder_embeds: EmbeddingDataset | None = None,
    encoder: str | None = None,
    observe: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None,
    widths: Sequence[int] | None = None,
) -> EvaluationResult:
    """Compute all metrics of an MSAE on raw embeddings at every level.

    Each batch is encoded once; the codes of all levels come from that one full code, by the model's own ranking. Sums
    are kept in float64. With several processes, each takes its own batches and all return the same result, which
    equals that of a single process up to rounding.

    Args:
        model: The MSAE, on any device; may be wrapped by `accelerator.prepare`. Its mode is restored afterwards.
        embeddings: Raw embeddings, or anything `load_embeddings` accepts.
        ks: Levels to evaluate: the code is cut to its k largest activations. Defaults to the levels the model was
            trained at, of either kind. The largest gives the headline figures. [`progressive_ks`] returns those of
            the MSAE paper's progressive recovery.
        batch_size: Number of embeddings encoded at a time, rounded down to a multiple of `cknna_batch_size` (at least
            one).
        cknna_batch_size: Number of samples per CKNNA batch, which the metric depends on; None leaves CKNNA out.
        progress: Show a progress bar (on the main process).
        accelerator: Splits the work over its processes, which must all call this function.
        classifiers: Classifiers by name, applied to embeddings and reconstructions. Train them on other data.
        labels: By a classifier's name, the class of every row of `embeddings`, as a number (-1: unknown) or a name.
            Adds accuracies.
        encoder_embeds: Another encoder's embeddings of the same samples in the same order, which judge
            monosemanticity; or anything `load_embeddings` accepts.
        encoder: Name of that encoder. Defaults to the backbone `encoder_embeds` were extracted with.
        observe: Called with the number of the first row, the embeddings and the full code of every batch, so that a
            caller can collect more from the same pass.
        widths: Levels of a model with nesting="prefix" to evaluate instead: only the first latents of the dictionary
            are used. The whole dictionary is always one of them.

    Returns:
        An [`EvaluationResult`]. Its `data` describes `embeddings`; only the caller knows whether they were held out
        from training: `result.with_data(held_out=True)`.

    Raises:
        ValueError: The embeddings and the model have different widths, a level is out of range, a row of the data is
            not finite or makes a metric undefined, the model's output is not finite, or classifiers, labels or the
            other encoder's embeddings do not fit the data.
    """
    embeddings, classifiers = _open(embeddings), dict(classifiers or {})
    if accelerator is not None:
        model = accelerator.unwrap_model(model)
    _check(model, embeddings, batch_size)
    sizes, of_dictionary = choose_levels(model.config, ks, widths)
    num_latents = model.config.num_latents
    if of_dictionary:
        sizes = sorted({*sizes, num_latents})
    cknna_size = None  # of the CKNNA batches, if there are enough samples for one
    if cknna_batch_size is not None:
        cknna_batch_size = min(int(CknnaAccumulator(cknna_batch_size).batch_size), len(embeddings))
        cknna_size = cknna_batch_size if cknna_batch_size >= smallest_batch() else None
    numbers = _check_classifiers(embeddings, classifiers, labels or {})
    encoder_embeds, encoder = check_encoder(embeddings, encoder_embeds, encoder)
    is_main = accelerator is None or accelerator.is_main_process
    mean = embeddings.statistics(progress=progress and is_main).mean

    def accumulator(size: int) -> LevelAccumulator:
        latents = size if of_dictionary else num_latents
        return LevelAccumulator(mean, latents, cknna_size, classifiers, encoder)

    levels = {size: accumulator(size) for size in sizes}
    baseline = ReconstructionAccumulator(mean)
    baseline_classifiers = {name: ClassificationAccumulator(each) for name, each in classifiers.items()}
    with evaluation_mode(model):
        for first_row, x in _batches(embeddings, batch_size, cknna_batch_size, progress and is_main, accelerator):
            rows, x = slice(first_row, first_row + len(x)), x.to(model.device)
            batch = EvaluationBatch(
                first_row,
                x,
                {name: each[rows] for name, each in numbers.items()},
                None if encoder_embeds is None else encoder_embeds[rows].to(x.device),
                _cknna_pieces(x, cknna_size),
            )
            try:  # rows refused here cannot be measured at any level
                baseline.update(x, mean.expand(len(x), -1), first_row)
            except ValueError as error:
                raise ValueError(f"{embeddings.source}: {error}") from None
            for name, each in baseline_classifiers.items():
                each.update(x, mean.to(x).expand(len(x), -1), batch.labels.get(name))
            code = model.full_code(x)
            if observe is not None:
                observe(first_row, x, code)
            for same, latents, reconstruction in decoded_levels(model, code, sizes, of_dictionary):
                part = accumulator(same[0])
                part.update(batch, latents[:, : same[0]] if of_dictionary else latents, reconstruction)
                for size in same:
                    levels[size].merge(part)

    constant = {"num_samples": len(embeddings), "cknna_batch_size": cknna_batch_size}
    orthogonality = {
        latents: decoder_orthogonality(model.dictionary[:latents]) if latents > 1 else None
        for latents in (sizes if of_dictionary else [num_latents])
    }
    baseline_mean = baseline.reduce(accelerator).compute()
    baseline_mean["classifiers"] = {
        name: each.reduce(accelerator).compute() for name, each in baseline_classifiers.items()
    }
    of_levels = {
        size: {
            **levels[size].compute(accelerator),
            "decoder_orthogonality": orthogonality[size if of_dictionary else num_latents],
            **constant,
        }
        for size in sizes
    }
    # No process has all the weights of a model that is sharded (FSDP).
    sharded = any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    data = {**describe_embeddings(embeddings), "held_out": None}
    return EvaluationResult.from_levels(
        of_levels,
        baseline_mean,
        None if sharded else model_fingerprint(model),
        data,
        FAMILIES[model.config.activation].full_code(model.config),
        of_dictionary,
    )


def _open(embeddings: Any) -> EmbeddingDataset:
    from ..embeddings import EmbeddingDataset, load_embeddings

    return embeddings if isinstance(embeddings, EmbeddingDataset) else load_embeddings(embeddings)


def _check_classifiers(
    embeddings: EmbeddingDataset, classifiers: Mapping[str, LinearClassifier], labels: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Return the class numbers of all rows, by classifier."""
    for name, classifier in classifiers.items():
        if not isinstance(classifier, LinearClassifier):
            raise TypeError(
                f"the classifier {name!r} is a {type(classifier).__name__}, but has to be a LinearClassifier: fit it "
                "with LinearClassifier.fit"
            )
        if (width := classifier.weight.shape[1]) != embeddings.width:
            raise ValueError(
                f"the classifier {name!r} takes embeddings of {width} columns, but those of {embeddings.source} have "
                f"{embeddings.width}"
            )
    numbers = {}
    for name, given in labels.items():
        if name not in classifiers:
            raise ValueError(f"there are labels for {name!r}, but no classifier of that name")
        found, _ = number_labels(given, classifiers[name].classes)
        if len(found) != len(embeddings):
            raise ValueError(
                f"{embeddings.source} has {len(embeddings)} rows, but there are {len(found)} labels for {name!r}"
            )
        numbers[name] = torch.from_numpy(found)
    return numbers


def check_encoder(
    embeddings: EmbeddingDataset, embeds: EmbeddingDataset | None, encoder: str | None
) -> tuple[EmbeddingDataset | None, str | None]:
    """Return another encoder's embeddings and its name; raises ValueError if they do not fit the data."""
    if embeds is None:
        if encoder is not None:
            raise ValueError(f"encoder is {encoder!r}, but its encoder_embeds are missing")
        return None, None
    embeds = _open(embeds)
    encoder = encoder or embeds.provenance.get("base_model_name_or_path")
    if not encoder:
        raise ValueError(f"name the encoder of {embeds.source}: a monosemanticity score means little without it")
    if len(embeds) != len(embeddings):
        raise ValueError(
            f"{embeddings.source} has {len(embeddings)} rows, but {embeds.source}, of {encoder}, has {len(embeds)}"
        )
    embeds.statistics()  # reads and checks every row before the pass over `embeddings`
    return embeds, str(encoder)


def _check(model: MSAEModel, embeddings: EmbeddingDataset, batch_size: int) -> None:
    config = model.config
    if embeddings.width != config.d_in:
        trained_on = ", ".join(str(each) for each in (config.base_model_name_or_path, config.hook_point) if each)
        raise ValueError(
            f"embeddings of {embeddings.source} have {embeddings.width} columns, but this MSAE was trained on "
            f"{config.d_in} ({trained_on})"
        )
    check_integers(batch_size=(batch_size, 1))


def _batches(
    embeddings: EmbeddingDataset,
    batch_size: int,
    cknna_batch_size: int | None,
    progress: bool,
    accelerator: Accelerator | None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (index of its first row, batch) for every batch of this process."""
    if cknna_batch_size is not None:
        batch_size = max(1, batch_size // cknna_batch_size) * cknna_batch_size
    rank, processes = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    starts = range(rank * batch_size, len(embeddings), processes * batch_size)
    rows = sum(min(batch_size, len(embeddings) - start) for start in starts)
    with tqdm(total=rows, desc="evaluating", unit="row", disable=not progress) as bar:
        for start in starts:
            batch = embeddings[start : start + batch_size]
            yield start, batch
            bar.update(len(batch))


def _cknna_pieces(x: torch.Tensor, size: int | None) -> list[tuple[slice, Neighborhood]]:
    """The full CKNNA batches within a batch, and the neighborhoods of their embeddings, which all levels share."""
    if size is None:
        return []
    pieces = [slice(start, start + size) for start in range(0, len(x) - size + 1, size)]
    return [(piece, Neighborhood(x[piece])) for piece in pieces]
