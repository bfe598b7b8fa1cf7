"""`write_report`: checks what it is given, has the sections made, and writes the page."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..concepts.labels import MAX_Q, Labels
from .bias_findings import bias_findings
from .checks import check_embeddings, check_findings, check_images, check_numbers, check_path
from .examples import explain_rows
from .findings import findings_of
from .gallery import MIDDLE, cards, choose
from .pictures import Pictures
from .quality import COLUMNS, measure, quality_of
from .rendering import render
from .searches import search_examples
from .survey import activations_of, survey_firing
from .tree import hierarchy_of

if TYPE_CHECKING:
    from datasets import Dataset

    from ..bias import BiasReport
    from ..embeddings import EmbeddingDataset
    from ..vision_text import VisionTextMSAE

_LIBRARIES = ("hf_msae", "torch", "transformers", "datasets", "numpy", "pillow", "matplotlib")


def write_report(
    path: str | os.PathLike,
    model: VisionTextMSAE,
    acts: EmbeddingDataset,
    images: Dataset | None = None,
    image_column: str = "image",
    bias: Sequence[BiasReport] = (),
    metrics: Mapping[str, Any] | None = None,
    index_folder: str | os.PathLike | None = None,
    num_concepts: int = 24,
    images_per_concept: int = 8,
    num_searches: int = 3,
    num_explained: int = 3,
    k: int = 32,
    seed: int = 0,
    progress: bool = True,
    command: str | None = None,
) -> Path:
    """Write a page about a model: quality, concepts and what activates them, hierarchy, bias, searches, limits.

    One HTML file with everything in it, which a browser shows without a network. The data is read in passes, and
    nothing but the activations of the concepts shown is held of all rows. The same arguments give the same page, but
    for the date.

    Args:
        path: of the page, .html; what is there is replaced once the new page is complete.
        model: a backbone and its MSAE of pooled image embeddings, with names where there are some. The backbone is
            not run.
        acts: embeddings to look at, best those the MSAE was not trained on.
        images: the data set whose rows the embeddings are of, in the same order; None: a page without pictures. A
            boolean column of it, or beside the embeddings, with the name of a concept shown is compared with that.
        image_column: of `images`.
        bias: finished reports of `bias_report`.
        metrics: the content of metrics.json; None measures them on `acts`.
        index_folder: where a `ConceptIndex` for the searches is built or continued; None: a temporary folder.
        num_concepts: in the gallery, at most.
        images_per_concept: that activate it most, and as many from the middle of its distribution.
        num_searches: example searches.
        num_explained: rows taken apart into concepts.
        k: latents of a row that count as active in it: in the gallery, the hierarchy and the index. Full codes have
            many weak ones besides.
        seed: of what is drawn at random.
        progress: show progress bars.
        command: how the page was made, to be told on it.

    Returns:
        The path.

    Raises:
        TypeError: acts, images or a bias report are something else.
        ValueError: the hook point is not image_embeds, embeddings, images and model do not belong together, a number
            is out of range, a picture cannot be decoded (says which row's), or `path` is a folder or no .html.

    Example:
        >>> model = VisionTextMSAE.from_pretrained("outputs/quickstart")
        >>> acts = load_embeddings("outputs/quickstart/embeddings/test")
        >>> write_report("report.html", model, acts, load_scenes("test", 5000, 42))
    """
    path = check_path(path)
    check_embeddings(model, acts)
    check_images(images, image_column, acts)
    bias = tuple(bias)
    check_findings(bias, metrics)
    counts = {"num_concepts": num_concepts, "images_per_concept": images_per_concept}
    counts |= {"num_searches": num_searches, "num_explained": num_explained, "seed": seed}
    check_numbers(model.msae.config.num_latents, k, **counts)

    msae, labels, pictures = model.msae, Labels(model.concepts), Pictures(images, image_column)
    found_metrics = measure(msae, acts, progress) if metrics is None else metrics
    firing = survey_firing(msae, acts, k, progress)
    chosen = choose(labels, firing, num_concepts)
    activations = activations_of(msae, acts, chosen.latents, k, progress)
    columns = [each for each in (images, acts.dataset) if each is not None]
    gallery = cards(labels, chosen.latents, activations, columns, images_per_concept, seed)
    hierarchy = hierarchy_of(msae, acts, labels, k, progress)
    findings = bias_findings(bias)
    searches = search_examples(
        msae, acts, labels, chosen.latents, activations, num_searches, k, seed, index_folder, progress
    )
    body = {
        "head": _head(model, acts),
        "findings": findings_of(found_metrics, firing, labels, gallery, hierarchy, findings),
        "quality": quality_of(found_metrics, msae.config.num_latents, metrics is None),
        "columns": COLUMNS,
        "chosen": chosen,
        "cards": gallery,
        "middle": MIDDLE,
        "explained": explain_rows(msae, acts, labels, num_explained, seed),
        "hierarchy": hierarchy,
        "bias": findings,
        "searches": searches,
        "max_q": MAX_Q,
        "settings": {**counts, "k": k},
        "command": command,
        "pictures": pictures,
        "date": datetime.date.today().isoformat(),
        "versions": {library: version(library) for library in _LIBRARIES},
    }
    # The templates note which pictures they show, and so the thumbnails come last.
    text = render(**body, thumbnails=lambda: pictures.style(progress))
    return _write(path, text)


def _head(model: VisionTextMSAE, acts: EmbeddingDataset) -> dict[str, Any]:
    config, backbone = model.msae.config, model.backbone
    source = model.msae.name_or_path
    return {
        "name": Path(source).name if source else f"MSAE of {backbone.name_or_path or type(backbone.model).__name__}",
        "source": source or "not saved",
        "backbone": backbone.name_or_path or type(backbone.model).__name__,
        "revision": backbone.revision,
        "hook_point": config.hook_point,
        "num_latents": config.num_latents,
        "width": config.d_in,
        "activation": config.activation,
        "nesting": config.nesting,
        "levels": config.nesting_ks,
        "data": acts.source,
        "split": acts.provenance.get("dataset_split"),
        "num_rows": len(acts),
    }


def _write(path: Path, text: str) -> Path:
    """Under a temporary name first, so that a half-written page never stands where a whole one was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
    return path
