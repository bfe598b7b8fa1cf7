"""`write_report`: check the arguments, read the embeddings once, build the sections, write the page."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.atomic import make_folder
from .._utils.checks import check_integers
from .._utils.deprecation import renamed_arguments
from .._utils.fingerprint import accepted_fingerprints
from .._utils.json_files import write_text
from ..concepts.labels import MAX_Q, Labels
from ..metrics import EvaluationResult
from ..metrics.levels import describe_levels
from ..metrics.overfitting import overfitting
from ..model.checks import check_k
from ..statistics import Result
from .checks import check_embeddings, check_images, check_metrics, check_types
from .context import Context, Settings
from .findings import findings_of
from .rendering import check_path, render_page
from .sections import SECTIONS
from .survey import survey
from .thumbnails import Thumbnails

if TYPE_CHECKING:
    from datasets import Dataset

    from ..bias import BiasReport
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel
    from ..steering import SwordBenchResult
    from ..vision_text import VisionTextMSAE

_LIBRARIES = ("hf_msae", "torch", "transformers", "datasets", "numpy", "pillow", "matplotlib")


@renamed_arguments(acts="embeddings")
def write_report(
    path: str | os.PathLike,
    model: VisionTextMSAE,
    embeddings: EmbeddingDataset,
    images: Dataset | None = None,
    image_column: str = "image",
    bias: BiasReport | Sequence[BiasReport] = (),
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
    steering: SwordBenchResult | None = None,
) -> Path:
    """Write a page about a model: quality, concepts, explained rows, hierarchy, bias, steering, searches and limits.

    The page is one HTML file that a browser shows without a network. The embeddings are encoded in one pass, which
    keeps the k strongest latents of every row (12 bytes each) and the activations of the concepts shown. The same
    arguments give the same page, except for the date.

    Args:
        path: The page, a file ending in .html. An existing file is replaced when the new page is complete.
        model: A backbone and its MSAE of pooled image embeddings, with names if there are any. The backbone is not
            run.
        embeddings: Embeddings to report on, preferably held out from training.
        images: The dataset of the pictures, its rows in the order of the embeddings. None makes a page without
            pictures. A boolean column of it, or of the embeddings' dataset, that is called like a concept is compared
            with that concept.
        image_column: Column of `images` with the pictures.
        bias: One report or several made by `bias_report`.
        metrics: The content of this model's metrics.json. None measures them on `embeddings`, or of more than 50,000
            on as many, drawn at random.
        index_folder: Where a `ConceptIndex` for the searches is built or extended. None uses a temporary folder.
        num_concepts: Number of concepts shown, at most.
        images_per_concept: Number of pictures that activate a concept most, and of pictures from the middle of its
            distribution.
        num_searches: Number of example searches.
        num_explained: Number of rows taken apart into concepts.
        k: Number of latents of a row that count as active in it: for the concepts, the hierarchy and the index. Full
            codes also contain many weak latents. At most as many as `encode` keeps by default.
        seed: Random seed of the examples.
        progress: Whether to show progress bars.
        command: The command that made the page, shown on it.
        steering: What `run_swordbench` returned.

    Returns:
        The path.

    Raises:
        TypeError: The embeddings are not opened embeddings; the images, a bias report or `steering` have another type.
        ValueError: The hook point is not image_embeds; embeddings, images, metrics and model do not belong together;
            a number is out of range; a picture cannot be decoded (the message names the row); or `path` is a folder or
            does not end in .html.

    Example:
        >>> model = VisionTextMSAE.from_pretrained("outputs/quickstart")
        >>> embeddings = load_embeddings("outputs/quickstart/embeddings/test")
        >>> write_report("report.html", model, embeddings, load_scenes("test", 5000, 42))
    """
    path = check_path(path)
    bias = (bias,) if isinstance(bias, Result) else tuple(bias)
    check_types(images, bias, steering)
    check_embeddings(model.msae, embeddings)
    check_images(images, image_column, embeddings)
    check_metrics(model.msae, metrics)
    # Where more latents counted than the codes hold, shares would not agree with activations.
    k = min(check_k(k, model.msae.config), model.msae.family.default_k(model.msae.config))
    settings = Settings(num_concepts, images_per_concept, num_searches, num_explained, k, seed)
    check_integers(**{name: (value, 0) for name, value in asdict(settings).items()})

    context = Context(
        model=model,
        embeddings=embeddings,
        images=images,
        pictures=Thumbnails(images, image_column),
        survey=survey(model.msae, embeddings, Labels(model.concepts), num_concepts, k, metrics, seed, progress),
        measured_here=metrics is None,
        overfitted=overfitting(_recorded_metrics(model.msae) if metrics is None else metrics),
        bias=bias,
        steering=steering,
        index_folder=index_folder,
        settings=settings,
        progress=progress,
    )
    built = {section.name: section.build(context) for section in SECTIONS if section.build is not None}
    backbone, source = model.backbone.name_or_path or type(model.backbone.model).__name__, model.msae.name_or_path
    # Templates note which pictures they show, and so the thumbnails come last.
    page = render_page(
        **built,
        name=Path(os.path.abspath(source)).name if source else f"MSAE of {backbone}",  # also of "."
        source=source or "not saved",
        backbone=backbone,
        levels=describe_levels(model.msae.config),
        model=model,
        embeddings=embeddings,
        findings=findings_of(context, built["concepts"].cards, built["hierarchy"]["found"], built["bias"]),
        sections=SECTIONS,
        settings=asdict(settings),
        max_q=MAX_Q,
        labels=context.labels,
        command=command,
        pictures=context.pictures,
        thumbnails=lambda: context.pictures.style(progress),
        date=datetime.date.today().isoformat(),
        versions={library: version(library) for library in _LIBRARIES},
    )
    make_folder(path.parent)
    write_text(path, page)
    return path


def _recorded_metrics(msae: MSAEModel) -> Mapping[str, Any]:
    """Return the content of metrics.json in the folder that a model was loaded from, if it is about these weights."""
    file = Path(msae.name_or_path or "") / "metrics.json"
    if not msae.name_or_path or not file.is_file():
        return {}
    try:
        found = EvaluationResult.load(file)
    except ValueError:  # the page does not depend on it, and `hf-msae doctor` names what is damaged
        return {}
    return found.to_dict() if found.model_sha256 in accepted_fingerprints(msae) else {}
