"""The scenes' own SigLIP: how it is built, where the trained one lies, and how well it sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel, SiglipProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from .captions import WORDINGS, caption_scene, full_caption
from .renderer import IMAGE_SIZE, render_array
from .world import CONCEPTS, EXTRAS, GROUP_OF, GROUPS, Scene, sample_scene

WIDTH = 128
MAX_LENGTH = 48
# The trained backbone as shipped: a transformers folder (SiglipModel, image processor, tokenizer).
BACKBONE_DIR = Path(__file__).parent / "siglip"
BACKBONE_NAME = "hf_msae/scenes-siglip"

# How a concept is asked for in words.
ZERO_SHOT_TEMPLATES: dict[str, tuple[str, ...]] = {
    "shape": ("{}", "a picture of a {}"),
    "colour": ("a {} shape", "a picture of a {} shape"),
    "size": ("a {} shape", "a picture of a {} shape"),
    "fill": ("a {} shape", "a picture of a {} shape"),
    "position": ("a shape {}", "a picture of a shape {}"),
    "background": ("a shape {}", "a picture of a shape {}"),
    "style": ("{}", "{} of a shape"),
    "count": ("{}", "a picture of {}"),
    "frame": ("{}", "a shape {}"),
    "watermark": ("{}", "a shape {}"),
}


def build_tokenizer(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer of the captions' words: lower case, spaces for punctuation, padded on the right."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789▁")
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=["[PAD]", "[UNK]", "[EOS]"], initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [EOS]", special_tokens=[("[EOS]", tokenizer.token_to_id("[EOS]"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[EOS]",
        model_max_length=MAX_LENGTH,
        padding_side="right",
        model_input_names=["input_ids"],
    )


def build_processor(seed: int = 0) -> SiglipProcessor:
    """Image processor and tokenizer of a new scenes backbone; AutoProcessor loads what it saves."""
    captions = [caption_scene(sample_scene("train", seed, i)) for i in range(6000)]
    # Once each, so that no word or synonym depends on having been drawn.
    captions += [wording for wordings in WORDINGS.values() for wording in wordings for _ in range(20)]
    image_processor = SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return SiglipProcessor(image_processor=image_processor, tokenizer=build_tokenizer(captions))


def build_model(tokenizer: PreTrainedTokenizerFast) -> SiglipModel:
    """An untrained scenes backbone: 128 wide, 36 image patches of 16 x 16 pixels, 1.2 million parameters."""
    common = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_attention_heads": 4}
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.eos_token_id,
    }
    text = {
        **common,
        **special,
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "max_position_embeddings": MAX_LENGTH,
        "projection_size": WIDTH,
    }
    vision = {**common, "num_hidden_layers": 3, "image_size": IMAGE_SIZE, "patch_size": 16}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    # transformers starts these at ln 1 and 0, from where training does not take off; these are the paper's values
    # (Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", section 3.2).
    # transformers starts position embeddings an order of magnitude below the patches' content, and where things are,
    # hence shape, which spans patches, is then learned very late. Both start at about the same size here.
    with torch.no_grad():
        embeddings = model.vision_model.embeddings
        embeddings.patch_embedding.weight.mul_(0.5)
        embeddings.position_embedding.weight.normal_(std=0.5)
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-10.0)
    return model


def concept_prompts(random: np.random.Generator) -> list[str]:
    """One short prompt for each of `CONCEPTS`, in order: wording and template drawn at random, or the bare word."""
    prompts = []
    for concept in CONCEPTS:
        templates = ZERO_SHOT_TEMPLATES[GROUP_OF[concept]]
        wording = WORDINGS[concept][random.integers(len(WORDINGS[concept]))]
        choice = int(random.integers(len(templates) + 1))
        prompts.append(concept if choice == len(templates) else templates[choice].format(wording))
    return prompts


@torch.no_grad()
def embed_arrays(model: SiglipModel, pictures: np.ndarray, batch_size: int = 256) -> torch.Tensor:
    """L2-normalised image embeddings (n, WIDTH) of uint8 pictures (n, IMAGE_SIZE, IMAGE_SIZE, 3)."""
    parts = []
    for start in range(0, len(pictures), batch_size):
        pixels = pixels_from_arrays(pictures[start : start + batch_size])
        parts.append(model.get_image_features(pixel_values=pixels.to(model.device, model.dtype)).pooler_output.float())
    return torch.nn.functional.normalize(torch.cat(parts), dim=-1)


def pixels_from_arrays(pictures: np.ndarray) -> torch.Tensor:
    """What the image processor makes of pictures that already have the right size: (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


@torch.no_grad()
def embed_texts(model: SiglipModel, tokenizer, texts: Sequence[str], batch_size: int = 256) -> torch.Tensor:
    """L2-normalised text embeddings (n, WIDTH)."""
    parts = []
    for start in range(0, len(texts), batch_size):
        ids = tokenizer(
            list(texts[start : start + batch_size]), padding="max_length", truncation=True, max_length=MAX_LENGTH
        )["input_ids"]
        parts.append(model.get_text_features(input_ids=torch.tensor(ids, device=model.device)).pooler_output.float())
    return torch.nn.functional.normalize(torch.cat(parts), dim=-1)


def zero_shot_accuracy(
    model: SiglipModel, tokenizer, scenes: Sequence[Scene], images: torch.Tensor
) -> dict[str, float]:
    """Accuracy of choosing each attribute of single-object scenes by text similarity, templates averaged.

    Args:
        scenes: the truth; scenes with more than one object are left out.
        images: (len(scenes), WIDTH) from `embed_arrays`.
    """
    single = [i for i, scene in enumerate(scenes) if len(scene.objects) == 1]
    accuracy = {}
    for group, templates in ZERO_SHOT_TEMPLATES.items():
        words = GROUPS[group]
        if len(words) == 1 or group == "count":
            continue  # nothing to choose among
        prompts = [template.format(WORDINGS[word][0]) for word in words for template in templates]
        texts = embed_texts(model, tokenizer, prompts).reshape(len(words), len(templates), -1).mean(1)
        chosen = (images[single] @ torch.nn.functional.normalize(texts, dim=-1).T).argmax(-1).tolist()
        truth = [next(j for j, word in enumerate(words) if word in scenes[i].concepts) for i in single]
        accuracy[group] = float(np.mean(np.equal(chosen, truth)))
    return accuracy


def retrieval_accuracy(similarity: torch.Tensor, group_size: int = 100) -> float:
    """Share of rows whose own column is the best of its group of `group_size`; ties count as the chance of a draw.

    Args:
        similarity: (n, n), images by captions; only the diagonal blocks of group_size are used.
    """
    hits = []
    for start in range(0, len(similarity) - group_size + 1, group_size):
        block = similarity[start : start + group_size, start : start + group_size]
        best = block.max(-1, keepdim=True).values
        ties = (block == best).sum(-1)
        hits.append((block.diagonal() == best[:, 0]).float() / ties)
    return float(torch.cat(hits).mean())


def oracle_similarity(scenes: Sequence[Scene]) -> torch.Tensor:
    """What a reader of the true attributes would score: the share of each caption's facts that hold, (n, n).

    A full caption's facts are the scene's own attributes, object by object; an object of a caption is compared with
    the best-fitting object of the picture.
    """

    def facts(scene: Scene) -> tuple[set[str], list[tuple[str, ...]]]:
        extras = {extra for extra in EXTRAS if getattr(scene, extra)}
        around = {scene.background, scene.style, scene.count} | extras
        return around, [(o.shape, o.colour, o.size, o.fill, o.position) for o in scene.objects]

    described = [facts(scene) for scene in scenes]
    scores = torch.zeros(len(scenes), len(scenes))
    for i, (seen, things) in enumerate(described):
        for j, (told, objects) in enumerate(described):
            if i // 100 != j // 100:
                continue  # never compared
            right = len(told & seen) - len(seen ^ told)
            right += sum(max(sum(a == b for a, b in zip(o, t, strict=True)) for t in things) for o in objects)
            scores[i, j] = right - 5 * len(objects)
    return scores


def evaluate_backbone(model: SiglipModel, tokenizer, num_scenes: int = 3000, seed: int = 0) -> dict:
    """Zero-shot accuracy per attribute (single-object scenes), top-1 retrieval among 100, on test scenes."""
    scenes = [sample_scene("test", seed, i) for i in range(num_scenes)]
    images = embed_arrays(model, np.stack([render_array(scene) for scene in scenes]))
    captions = embed_texts(model, tokenizer, [full_caption(scene) for scene in scenes])
    similarity = images @ captions.T
    return {
        "num_scenes": num_scenes,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "num_single_object_scenes": sum(len(scene.objects) == 1 for scene in scenes),
        "zero_shot_accuracy": zero_shot_accuracy(model, tokenizer, scenes, images),
        "image_to_caption_top1_of_100": retrieval_accuracy(similarity),
        "caption_to_image_top1_of_100": retrieval_accuracy(similarity.T),
        "oracle_top1_of_100": retrieval_accuracy(oracle_similarity(scenes)),
        "concept_vocabulary": len(CONCEPTS),
    }
