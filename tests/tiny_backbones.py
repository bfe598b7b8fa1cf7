"""Tiny models of every backbone family, with real processors, as transformers saves them."""

import numpy as np
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

TOWER = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TOWER, "image_size": 16, "patch_size": 8}
TEXT = {**TOWER, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1, "max_position_embeddings": 10}


CAPTIONS = ["a red circle", "blue", "a photo of a blue square on the left of a red circle on the right"]


def word_tokenizer(template, **settings):
    words = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", *"a red blue circle square on the left right photo of".split()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("[BOS]", 1), ("[EOS]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", **settings
    )


def clip_tokenizer():
    letters = "abcdefghijklmnopqrstuvwxyz"
    symbols = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return transformers.CLIPTokenizer(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[])


def save_clip(folder):
    tokenizer = clip_tokenizer()
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.CLIPConfig(
        text_config={**TEXT, **special, "vocab_size": len(tokenizer)}, vision_config=VISION, projection_dim=24
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPProcessor(image_processor=crop_processor(), tokenizer=tokenizer).save_pretrained(folder)


def save_metaclip_2(folder):
    tokenizer = word_tokenizer("[BOS] $A [EOS]")
    text = {**TEXT, "vocab_size": len(tokenizer)}
    config = transformers.MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=24)
    transformers.MetaClip2Model(config).save_pretrained(folder)
    transformers.CLIPProcessor(image_processor=crop_processor(), tokenizer=tokenizer).save_pretrained(folder)


def save_siglip(folder):
    tokenizer = word_tokenizer("$A [EOS]", model_input_names=["input_ids"])
    config = transformers.SiglipConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "projection_size": 32}, vision_config=VISION
    )
    transformers.SiglipModel(config).save_pretrained(folder)
    images = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    transformers.SiglipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


def save_siglip2(folder):
    tokenizer = word_tokenizer("$A [EOS]")
    vision = {**TOWER, "patch_size": 8, "num_patches": 16}
    config = transformers.Siglip2Config(text_config={**TEXT, "vocab_size": len(tokenizer)}, vision_config=vision)
    transformers.Siglip2Model(config).save_pretrained(folder)
    images = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    transformers.Siglip2Processor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


def save_clip_vision_with_projection(folder):
    config = transformers.CLIPVisionConfig(**VISION, projection_dim=24)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    crop_processor().save_pretrained(folder)


def save_clip_vision(folder):
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)).save_pretrained(folder)
    crop_processor().save_pretrained(folder)


def save_siglip_vision(folder):
    transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)


def save_dinov2(folder):
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    BitImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)


def crop_processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


FAMILIES = {
    "CLIPModel": save_clip,
    "MetaClip2Model": save_metaclip_2,
    "SiglipModel": save_siglip,
    "Siglip2Model": save_siglip2,
    "CLIPVisionModelWithProjection": save_clip_vision_with_projection,
    "CLIPVisionModel": save_clip_vision,
    "SiglipVisionModel": save_siglip_vision,
    "Dinov2Model": save_dinov2,
}
TWO_TOWERS = ("CLIPModel", "MetaClip2Model", "SiglipModel", "Siglip2Model")


def pictures(count=3, size=(20, 24)):
    noise = np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in noise]
