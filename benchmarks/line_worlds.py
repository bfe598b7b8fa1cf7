"""The worlds that labels of neurons are measured on: pictures for every purpose, and what is true of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import concatenate_datasets

from hf_msae import VisionTextMSAE
from hf_msae.clipart import load_clipart
from hf_msae.concepts import Vocabulary
from hf_msae.neuron_labels import CompositionImager, Imager, ScenesImager, TagsImager
from hf_msae.neuron_labels.evaluation.truth import SceneTruth, WordTruth
from hf_msae.scenes import load_scenes
from hf_msae.scenes.world import sample_scene

IMAGERS = {"other_authors": "", "all_authors": ", all authors", "composed": ", all authors, composed"}
NUM_CONTROL = 1000


@dataclass
class World:
    """Pictures for every purpose, and what is true of them."""

    name: str
    model: VisionTextMSAE
    control: list
    control_truth: SceneTruth | WordTruth
    imagers: dict[str, Imager]
    truth: SceneTruth | WordTruth
    truth_embeds: torch.Tensor
    templates: tuple[str, ...]

    def activations(self, latents: list[int] | slice, embeddings: torch.Tensor) -> np.ndarray:
        """Activations of latents (N, n)."""
        with torch.no_grad():
            return torch.cat([self.model.msae.encode(part)[:, latents] for part in embeddings.split(512)]).numpy()


def scenes_world(seed: int, num_truth: int = 3000) -> World:
    """Scenes of other seeds for the control and for the truth; the imager renders scenes that are in neither."""
    model = VisionTextMSAE.from_pretrained("scenes-image")
    control, known = load_scenes("test", NUM_CONTROL, seed=seed + 100), load_scenes("test", num_truth, seed=seed + 200)
    of_control = SceneTruth([sample_scene("test", seed + 100, index) for index in range(NUM_CONTROL)])
    truth = SceneTruth([sample_scene("test", seed + 200, index) for index in range(num_truth)])
    templates = Vocabulary.of_scenes().templates
    embeds = model.image_embeds(known["image"], progress=False)
    imagers = {"": ScenesImager(seed)}
    return World("scenes", model, control["image"][:], of_control, imagers, truth, embeds, templates)


def clipart_world(seed: int, num_truth: int = 1500) -> World:
    """Drawings of known authors for control and truth; imagers take other drawings, by their tags."""
    model = VisionTextMSAE.from_pretrained("clipart-image")
    train = load_clipart("train").shuffle(seed=seed)
    end = NUM_CONTROL + num_truth
    control, known = train.select(range(NUM_CONTROL)), train.select(range(NUM_CONTROL, end))
    unseen = concatenate_datasets([load_clipart("validation"), load_clipart("test")])
    truth = WordTruth.from_tags(known["tags"][:], least=20)
    presence = np.array([[tag in tags for tag in truth.concepts] for tags in control["tags"]])
    of_control = WordTruth(truth.concepts, presence)
    others = concatenate_datasets([unseen, train.select(range(end, len(train)))])
    of_all = TagsImager(others["image"], others["tags"])
    made = (TagsImager(unseen["image"], unseen["tags"]), of_all, CompositionImager(of_all, seed=seed))
    imagers = dict(zip(IMAGERS.values(), made, strict=True))
    embeds = model.image_embeds(known["image"], progress=False)
    return World("clipart", model, control["image"][:], of_control, imagers, truth, embeds, ("{}",))


MAKERS = {"scenes": scenes_world, "clipart": clipart_world}


def general_words() -> list[str]:
    """Whole words of Llama 2's tokenizer, as WordLlama has them: English, but not chosen for these worlds."""
    import wordllama

    folder = Path(wordllama.__file__).parent / "tokenizers"
    (file,) = folder.glob("l2_supercat_tokenizer_config.json")
    tokens = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    words = [token[1:] for token in tokens if token.startswith("\u2581")]
    return [
        word
        for word in dict.fromkeys(words)
        if len(word) >= 3 and word.isascii() and word.isalpha() and word.islower()
    ]
