"""Arguments of `hf-msae label`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .._utils.argument_parser import flag
from .checks import changed, check_least, refuse_without

LEAST_ACTIVE = 10
_PROPOSERS = ("vocabulary", "transformers", "inference")
_OF_SERVICES = {
    ("price_input", "price_output"): ["proposer"],
    ("price_image",): ["imager"],
    ("api_key_variable",): ["proposer", "imager"],
}
_IMAGERS = ("scenes", "retrieval", "diffusers", "inference")


@dataclass
class LabelArguments:
    """Which latents to label, and by what."""

    _argument_group_name: ClassVar[str] = "labels"

    control: str = flag(
        "Control pictures, with which the pictures of a concept are compared: a folder, a dataset on the Hub, "
        "scenes:SPLIT:N[:SEED], or whatever else hf-msae extract reads. They are never taken from --images."
    )
    output: str = flag("Folder for labels, history, pictures and figures. A run in this folder is continued.")
    latents: list[int] = flag("Latents to label.", [])
    all_active: bool = flag(f"Label all latents that at least {LEAST_ACTIVE} control pictures activate.", False)
    proposer: str = flag(
        "Source of concepts: 'vocabulary', which is not a language model and proposes only the words of "
        "--vocabulary; transformers:MODEL for a language model on this machine, or transformers:FOLDER/FILE.gguf; or "
        "inference:MODEL for one behind an API, whose key is in HF_TOKEN or the variable that --api_key_variable "
        "names.",
        "vocabulary",
    )
    vocabulary: str | None = flag(
        "Words: a text file with one word per line, a .csv or .tsv table (with --vocabulary_column), or 'scenes'. The "
        "search starts from those that fit the control pictures which activate a latent, and the proposer "
        "'vocabulary' proposes nothing else.",
        None,
    )
    vocabulary_column: str | None = flag("Column of the words, in a table.", None)
    imager: str = flag(
        "Source of pictures: 'scenes', the renderer of the synthetic scenes; 'retrieval' from --images by text; "
        "diffusers:MODEL for a text-to-image model on this machine; or inference:MODEL for one behind an API.",
        "retrieval",
    )
    images: str | None = flag("Pictures to retrieve from, given like --control.", None)
    images_split: str | None = flag("Split of --images, if it has several.", None)
    control_split: str | None = flag("Split of --control, if it has several.", None)
    image_column: str = flag("Column of the pictures in --control and --images.", "image")
    max_control: int = flag("Maximum number of control pictures: rows spread over the dataset.", 1000)
    truth: str | None = flag(
        "Pictures whose contents are known, given like --control, on which labels are checked: scenes, or a dataset "
        "with a column of tags or boolean columns. By default the control pictures that the search does not use; "
        "those that it uses are left out.",
        None,
    )
    truth_split: str | None = flag("Split of --truth, if it has several.", None)
    base_url: str | None = flag("Address of your own server for inference:MODEL, as the proposer or imager.", None)
    api_key_variable: str | None = flag(
        "Environment variable with the API key. Without it, your own server gets no key.", None
    )
    start_from_names: bool = flag("Start from a latent's name and runner-up in the table of names, too.", True)
    iterations: int = flag("Number of proposals for each latent.", 10)
    images_per_concept: int = flag(
        "Number of pictures for each proposed concept; the best concepts get up to four times as many.", 5
    )
    confirm_images: int = flag(
        "Number of fresh pictures to confirm a label with: at least 5, or 0 for no confirmation.", 20
    )
    metric: Literal["auc", "mad", "mean"] = flag(
        "Score of a concept: the AUC against control pictures, the distance of the means in standard deviations, or "
        "the mean activation.",
        "auc",
    )
    k: int | None = flag("Number of latents to keep for each picture. Defaults to the MSAE's own.", None)
    budget_calls: int | None = flag("Maximum number of calls of the language model.", None)
    budget_tokens: int | None = flag("Maximum number of tokens of prompts and answers.", None)
    budget_images: int | None = flag("Maximum number of pictures to make.", None)
    budget_seconds: float | None = flag("Maximum run time in seconds; labels found by then are still confirmed.", None)
    budget_cost: float | None = flag("Maximum cost of calls and pictures, by the prices below.", None)
    price_input: float = flag("Price of a million tokens of prompts, for inference:MODEL as the proposer.", 0.0)
    price_output: float = flag("Price of a million tokens of answers.", 0.0)
    price_image: float = flag("Price of a picture, for inference:MODEL as the imager.", 0.0)
    style: str | None = flag(
        "Prompt for a text-to-image model: plain, photo, or a text with {} in the concept's place. Defaults to plain.",
        None,
    )
    hard_negatives: int = flag(
        "Number of pictures that lack a concept and are otherwise similar to its own, as half of its comparison; the "
        "imager scenes makes them.",
        0,
    )
    figures: int = flag("Number of labels to draw figures for, in order.", 24)
    seed: int = flag("Random seed of proposals, pictures, and of the control's halves.", 0)

    def __post_init__(self):
        if bool(self.latents) == self.all_active:
            raise ValueError("say which latents to label with either --latents or --all_active")
        if len(set(self.latents)) < len(self.latents):
            raise ValueError(f"a latent is given twice: {' '.join(map(str, self.latents))}")
        check_least(self, iterations=0, images_per_concept=1, confirm_images=0, max_control=20, figures=0, seed=0)
        check_least(self, price_input=0, price_output=0, price_image=0, hard_negatives=0)
        if self.budget_cost is not None and not (self.price_input or self.price_output or self.price_image):
            raise ValueError("budget_cost needs a price: --price_input, --price_output or --price_image")
        kind, _, name = self.proposer.partition(":")
        if kind not in _PROPOSERS or bool(name) == (kind == "vocabulary"):
            raise ValueError(f"proposer is vocabulary, transformers:MODEL or inference:MODEL, got {self.proposer}")
        if kind == "vocabulary" and self.vocabulary is None:
            raise ValueError("the proposer 'vocabulary' needs words from --vocabulary")
        if self.vocabulary_column is not None and self.vocabulary in (None, "scenes"):
            raise ValueError("vocabulary_column is a column of a .csv or .tsv table: name it as --vocabulary")
        kind, _, name = self.imager.partition(":")
        if kind not in _IMAGERS or bool(name) == (kind in ("scenes", "retrieval")):
            raise ValueError(f"imager is scenes, retrieval, diffusers:MODEL or inference:MODEL, got {self.imager}")
        if self.base_url is not None and self.proposer.startswith("inference:") == (kind == "inference"):
            raise ValueError("base_url needs the proposer or the imager, and not both, to be inference:MODEL")
        refuse_without(self, "truth", "truth_split")
        refuse_without(self, "images", "images_split")
        services = [each for each in ("proposer", "imager") if getattr(self, each).startswith("inference:")]
        for names, of in _OF_SERVICES.items():
            if not set(of) & set(services) and (given := changed(self, names)):
                raise ValueError(f"--{given[0]} has no effect unless the {' or the '.join(of)} is inference:MODEL")
        if self.style is not None and kind not in ("diffusers", "inference"):
            raise ValueError(f"style is for text-to-image models, not for the imager {kind}")
        if self.hard_negatives and kind != "scenes":
            raise ValueError(f"hard_negatives are made by the imager scenes alone, not by {kind}: leave them out")
        if (kind == "retrieval") != (self.images is not None):
            raise ValueError("the imager 'retrieval' needs pictures from --images, and no other imager does")
