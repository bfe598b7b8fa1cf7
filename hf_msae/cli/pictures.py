"""Pictures that a command reads, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset
    from datasets.arrow_dataset import Column

    from ..neuron_labels import NeuronLabels
    from ..neuron_labels.control import Control
    from ..neuron_labels.evaluation import LabelChecks, Truth
    from ..vision_text import VisionTextMSAE

NO_TRUTH = "no column of tags and no boolean columns say what pictures show; --truth takes other pictures"


@dataclass(frozen=True)
class Pictures:
    """Some rows of a column of pictures."""

    source: str
    dataset: Dataset
    rows: Sequence[int]
    column: str

    @classmethod
    def open(cls, source: str, split: str | None, column: str, most: int | None = None) -> Pictures:
        """Open what `hf-msae extract` reads, and take at most `most` rows, spread over it."""
        from datasets import Dataset

        from ..backbones.image_text_data import open_dataset
        from ..backbones.pictures import spread_rows

        dataset = open_dataset(source, split)
        if column not in dataset.column_names:
            names = ", ".join(dataset.column_names)
            raise ValueError(f"{source} has no column {column!r}, only {names}: name it with --image_column")
        rows = Dataset.from_dict({"row": range(len(dataset))})
        return cls(source, dataset, (rows if most is None else spread_rows(rows, most))["row"][:], column)

    @property
    def images(self) -> Column:
        """The pictures, decoded one by one."""
        from .._utils.images import undecoded

        return undecoded(self.dataset.select(self.rows), self.column)[self.column]

    def truth(self, places: Sequence[int] | None = None) -> Truth | None:
        """Return what is in the pictures at these places, by default in all; None where no column says it."""
        from ..neuron_labels.evaluation import known_truth

        rows = self.rows if places is None else [self.rows[place] for place in places]
        return known_truth(self.dataset, rows, self.source)


@dataclass(frozen=True)
class KnownPictures:
    """Pictures that labels are checked on: `rows` of those in `control`, and what is in these, if that is known."""

    control: Control
    rows: Sequence[int]
    truth: Truth | None

    @classmethod
    def of_control(cls, control: Control, pictures: Pictures) -> KnownPictures:
        """Take the control pictures that no search uses."""
        rows = control.confirm_rows.tolist()
        return cls(control, rows, pictures.truth(rows))

    @classmethod
    def open(cls, source: str, split: str | None, column: str, searched: Control) -> KnownPictures:
        """Open pictures for this purpose, and leave out those that searches use as control pictures."""
        from transformers.utils import logging

        from ..neuron_labels.control import Control
        from ..neuron_labels.imagers.base import image_sha256

        pictures = Pictures.open(source, split, column)
        if (truth := pictures.truth()) is None:
            raise ValueError(f"labels cannot be checked on {source}: {NO_TRUTH}")
        control = Control(pictures.images, progress=searched.progress)
        seen = {image_sha256(searched.picture(row)) for row in searched.search_rows}
        rows = [row for row in range(len(control)) if image_sha256(control.picture(row)) not in seen]
        if not rows:
            raise ValueError(f"labels cannot be checked on {source}: the search uses all of it as control pictures")
        if left_out := len(control) - len(rows):
            logging.get_logger(__name__).warning(
                f"labels are checked on {len(rows)} of the {len(control)} pictures of {source}: the search uses the "
                f"other {left_out} as control pictures"
            )
            truth = pictures.truth(rows)
        return cls(control, rows, truth)

    def check(self, labels: NeuronLabels, model: VisionTextMSAE, k: int | None, seed: int) -> LabelChecks | None:
        """Check labels of latents; None without truth or labels."""
        import numpy as np

        from ..neuron_labels import MSAENeuron
        from ..neuron_labels.evaluation import check_labels

        if self.truth is None or not len(labels):
            return None
        neurons = [MSAENeuron(model, label.latent, k) for label in labels.labels]
        activations = [neuron.read(self.control.features(neuron)[self.rows]) for neuron in neurons]
        return check_labels(labels, np.stack(activations, axis=1), self.truth, seed)
