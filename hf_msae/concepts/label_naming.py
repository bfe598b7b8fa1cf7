"""Name latents by labels of the rows themselves, and test the names on other rows."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from .._utils.checks import check_integers, check_several
from .._utils.fingerprint import model_fingerprint
from ..statistics import auroc_interval, benjamini_hochberg
from .codes import Embeddings, open_embeddings
from .halves import picture_groups
from .row_labels import MIN_ROWS, RowLabel, read_labels, stratified_half
from .table import ConceptTable
from .zero_shot import read_activations, spread

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

MIN_CHOSEN = 0.7
"""What the lower end of the AUROC's interval has to reach on the first half for a latent to get a name at all."""

_MOST_LISTED = 10
_CHUNK_ENTRIES = 2**25


@torch.no_grad()
def name_by_labels(
    msae: MSAEModel,
    embeddings: Embeddings,
    columns: Sequence[str],
    seed: int = 0,
    batch_size: int = 2048,
    progress: bool = False,
) -> ConceptTable:
    """Name latents by the labels that their activations tell, with the evidence for each name.

    Labels are columns next to the embeddings: booleans (or 0 and 1, or text such as "True" and "no"), and strings or
    classes, of which every value is a label, named "column: value" if another column has the same one. Rows where a
    column is empty are left out for its labels.

    The rows are split at random into two halves that share the rows of every label. On the first, each latent gets the
    label that its activation detects best, by the lower end of the AUROC's interval, so that a rare label does not win
    by luck. If that is below 0.7, the latent gets no name. A latent that is active where the label is absent is named
    "not" and the label. All figures are of the second half:

    - The AUROC with which the activation tells rows with the label from rows without it, with Newcombe's 95% interval
      (Statistics in Medicine 2006, method 5).
    - A one-sided p-value of the test of Mann and Whitney, and the q-value over all names (Benjamini-Hochberg). Each
      latent has one test, since it is not tested on the rows that chose among the labels.

    A name is validated if q is at most 0.05 and the lower end of the interval at least 0.9. At most 20,000 rows of
    each half are read, and fewer if an MSAE has over 13,000 latents. Copies, with the same embedding, are in the same
    half. Near-duplicates, or rows of one group such as a photographer's, that fall into both halves make the figures
    look better than they are.

    Args:
        msae: The MSAE.
        embeddings: Embeddings of the MSAE's backbone, stored with the columns; anything `load_embeddings` accepts.
        columns: Names of the columns.
        seed: Random seed of the split.
        batch_size: Rows encoded at a time.
        progress: Whether to show progress bars.

    Returns:
        A table with the columns latent, name, label and polarity (1, or -1 for "not"), auroc, auroc_low, auroc_high,
        num_positive and num_negative (rows of the second half where the name is true, and where it is not), runner_up
        (the second-best name) and runner_up_auroc, p_value and q_value. There is no text, so similarity is empty.

    Raises:
        ValueError: There is no such column or it holds something else, no label has 10 rows with it and 10 without it
            in each half, or the embeddings are of tokens.
    """
    check_several("columns", columns=columns)
    columns = [str(column) for column in columns]
    if not columns:
        raise ValueError("there is no column to read labels from: name at least one")
    check_integers(seed=(seed, 0))
    embeddings = open_embeddings(msae, embeddings)
    if embeddings.has_tokens:
        raise ValueError(f"labels are of whole rows, but {embeddings.source} has several embeddings per row")
    labels = read_labels(embeddings, columns)
    groups = picture_groups(embeddings, batch_size)
    first = np.unique(groups, return_index=True)[1]
    # One label of each column: a column may have a thousand, whose copies of a million rows would fill the memory.
    of_columns = {label.column: label for label in labels}.values()
    held_out = stratified_half([replace(label, classes=label.classes[first]) for label in of_columns], seed)[groups]
    n = msae.config.num_latents
    halves = [spread(np.flatnonzero(half), n) for half in (~held_out, held_out)]
    labels, left_out = _with_enough_rows(labels, halves, embeddings.source)
    truths = [np.stack([label.truth(half) for label in labels]) for half in halves]
    rows = np.sort(np.concatenate(halves))
    found = {
        **{key: np.full(n, None, dtype=object) for key in ("name", "label", "runner_up")},
        "polarity": np.zeros(n),
        **{key: np.full(n, np.nan) for key in ("auroc", "num_positive", "num_negative", "runner_up_auroc")},
        "p_value": np.ones(n),
    }
    activations = read_activations(msae, embeddings, np.arange(n), rows, batch_size, progress)
    for part in np.array_split(np.arange(n), -(-activations.size // _CHUNK_ENTRIES)):
        choosing, testing = (activations[np.ix_(half, part)] for half in (~held_out[rows], held_out[rows]))
        alive = (np.ptp(choosing, axis=0) > 0) & (np.ptp(testing, axis=0) > 0)
        chosen, figures = _choose(labels, truths, choosing[:, alive], testing[:, alive])
        for key, of_latents in figures.items():
            found[key][part[alive][chosen]] = of_latents
    name, runner_up, label = (found.pop(key) for key in ("name", "runner_up", "label"))
    named = np.flatnonzero(label)
    q_value, (low, high), empty = np.ones(n), np.full((2, n), np.nan), np.full(n, np.nan)
    q_value[named] = benjamini_hochberg(found["p_value"][named])
    evidence = (found[key][named] for key in ("auroc", "num_positive", "num_negative"))
    low[named], high[named] = auroc_interval(*evidence)
    table = ConceptTable.from_columns(
        name, empty, runner_up, empty, **found, q_value=q_value, auroc_low=low, auroc_high=high
    )
    frame = table.frame.assign(label=label, polarity=found["polarity"].astype(np.int8))
    provenance = {
        "evidence": "labels",
        "label_columns": columns,
        "labels": [each.name for each in labels],
        "left_out": left_out,
        "rows": len(rows),
        "model_sha256": model_fingerprint(msae),
        "seed": int(seed),
    }
    return ConceptTable(frame, provenance)


def _with_enough_rows(
    labels: Sequence[RowLabel], halves: Sequence[np.ndarray], source: str
) -> tuple[list[RowLabel], dict[str, int]]:
    """Return the labels that both halves have enough rows of, and in how many rows the others are true."""
    kept, few = [], []
    for label in labels:
        counts = [label.counts(half) for half in halves]
        if min(map(min, counts)) >= MIN_ROWS:
            kept.append(label)
        else:
            few.append((sum(true for true, _ in counts), label))
    few.sort(key=lambda each: -each[0])
    if few:
        listed = ", ".join(f"{label.name!r} of {label.column} ({count:,})" for count, label in few[:_MOST_LISTED])
        listed += f" and {len(few) - _MOST_LISTED:,} more" if len(few) > _MOST_LISTED else ""
        message = (
            f"each half of {source} needs {MIN_ROWS} rows with a label and {MIN_ROWS} without it, but these labels "
            f"have too few (in brackets, how many of {sum(map(len, halves)):,} rows have the label): {listed}"
        )
        if not kept:
            raise ValueError(message)
        warnings.warn(f"{message}; they name no latent", stacklevel=4)
    same = Counter(label.name for label in kept)
    return [
        replace(label, name=f"{label.column}: {label.name}") if same[label.name] > 1 else label for label in kept
    ], {label.name: count for count, label in few}


def _choose(
    labels: Sequence[RowLabel], truths: Sequence[np.ndarray], choosing: np.ndarray, testing: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Choose names for latents by their activations (rows, latents) in one half, and test the names on the other.

    `truths` holds for each half the truth (labels, rows) of its rows. Returns the latents that get a name, and what is
    found about them.
    """
    absent = [place for place, label in enumerate(labels) if not label.is_one_of_two]
    label = np.array([*range(len(labels)), *absent])  # of each candidate: first labels, then their absence
    sign = np.repeat([1, -1], [len(labels), len(absent)])
    words = np.array([each.name for each in labels], dtype=object)
    names = np.concatenate([words, "not " + words[absent]]) if absent else words

    def measured(truth: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the areas (candidates, latents), and the numbers of rows of candidates."""
        areas = _areas(truth, values)
        those, others = (truth == 1).sum(axis=1)[label], (truth == 0).sum(axis=1)[label]
        counts = np.where(sign > 0, those, others), np.where(sign > 0, others, those)
        return np.concatenate([areas, 1 - areas[absent]]), *counts

    areas, positives, negatives = measured(truths[0], choosing)
    low, may_pass = np.full(areas.shape, -1.0), areas >= MIN_CHOSEN  # the lower end lies below the area
    which = np.nonzero(may_pass)[0]
    low[may_pass], _ = auroc_interval(areas[may_pass], positives[which], negatives[which])
    chosen = np.flatnonzero(low.max(axis=0) >= MIN_CHOSEN)
    others, latents = areas[:, chosen], np.arange(len(chosen))
    best = low[:, chosen].argmax(axis=0)
    others[label[:, None] == label[best]] = -1
    second = others.argmax(axis=0)
    has_second = others[second, latents] >= 0

    from scipy.stats import mannwhitneyu  # here, since it takes most of a second

    testing = testing[:, chosen]
    areas, positives, negatives = measured(truths[1], testing)
    p_value = np.ones(len(best))
    for each in np.unique(best):
        mine = best == each
        true, false = (testing[truths[1][label[each]] == which][:, mine] for which in (1, 0))
        side = "greater" if sign[each] > 0 else "less"
        p_value[mine] = mannwhitneyu(true, false, alternative=side, method="asymptotic").pvalue
    return chosen, {
        "name": names[best],
        "label": words[label[best]],
        "polarity": sign[best],
        "auroc": areas[best, latents],
        "num_positive": positives[best],
        "num_negative": negatives[best],
        "runner_up": np.where(has_second, names[second], None),
        "runner_up_auroc": np.where(has_second, areas[second, latents], np.nan),
        "p_value": np.where(np.isnan(p_value), 1.0, p_value),  # an activation that is the same in all known rows
    }


def _areas(truth: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the areas under the ROC curve (labels, latents) of activations for labels, where these are known."""
    from scipy.stats import rankdata  # here, since it takes most of a second

    areas = np.empty((len(truth), values.shape[1]))
    groups = defaultdict(list)
    for label, known in enumerate(truth >= 0):
        groups[known.tobytes()].append(label)
    for mine in groups.values():  # labels that are known of the same rows share the ranks
        known = truth[mine[0]] >= 0
        true = truth[mine][:, known].astype(np.float64)
        number = true.sum(axis=1, keepdims=True)
        sums = true @ rankdata(values[known], axis=0) - number * (number + 1) / 2
        areas[mine] = sums / (number * (known.sum() - number))
    return areas
