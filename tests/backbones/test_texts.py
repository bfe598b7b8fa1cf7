"""Texts are read as in pre-training: case, padding and mask."""

import json
import shutil

import datasets  # noqa: F401  (first, so that its import time is nobody's test)
import pandas as pd
import pytest
import torch
import transformers

from hf_msae.backbones import Backbone
from tests.tiny_backbones import CAPTIONS, TEXT, VISION, crop_processor


def test_a_siglip_text_does_not_depend_on_the_texts_beside_it(siglip):
    """SigLIP masks nothing, so padding to the longest text of a batch would change the shorter ones."""
    padded = {"padding": "max_length", "truncation": True, "max_length": 10, "padding_side": "right"}
    assert siglip.text_settings == {**padded, "return_attention_mask": False, "lower_case": False}
    alone = siglip.text_embeds("a red circle")
    torch.testing.assert_close(siglip.text_embeds(CAPTIONS)[:1], alone)
    tokens = siglip.tokenizer(["a red circle"], return_tensors="pt", return_attention_mask=False)
    with torch.no_grad():
        unpadded = siglip.model.get_text_features(**tokens).pooler_output
    assert not torch.allclose(unpadded, alone, atol=1e-3), "padding makes no difference: this test shows nothing"


@pytest.mark.parametrize("name", ["CLIPModel", "SiglipModel", "Siglip2Model"])
def test_the_files_of_a_tokenizer_do_not_change_a_text(folders, backbones, tmp_path, name):
    """Tokenizers saved by another version or after fine-tuning return masks that SigLIP was not trained with."""
    shutil.copytree(folders[name], tmp_path / name)
    path = tmp_path / name / "tokenizer_config.json"
    for inputs in (["input_ids"], ["input_ids", "token_type_ids", "attention_mask"]):
        settings = {"padding_side": "left", "model_input_names": inputs}
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
        backbone = Backbone.from_pretrained(tmp_path / name)
        assert backbone.tokenizer.padding_side == "left" and backbone.tokenizer.model_input_names == inputs
        assert torch.equal(backbone.text_embeds(CAPTIONS), backbones[name].text_embeds(CAPTIONS))
        blocks = backbone.read("text.layers.1", CAPTIONS)
        assert torch.equal(blocks, backbones[name].read("text.layers.1", CAPTIONS))


def test_a_model_that_was_trained_with_a_mask_can_say_so(folders, siglip):
    masked = Backbone.from_pretrained(folders["SiglipModel"], text_mask=True)
    tokens = masked.tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=10, return_tensors="pt",
                              return_attention_mask=True)  # fmt: skip
    with torch.no_grad():
        assert torch.equal(masked.text_embeds(CAPTIONS), masked.model.get_text_features(**tokens).pooler_output)
    assert (masked.text_embeds("blue") - siglip.text_embeds("blue")).norm() > 0.1
    assert masked.provenance()["text_settings"]["return_attention_mask"] is True


def test_siglip_2_reads_texts_in_lower_case(folders, tmp_path):
    """Fixed-size checkpoints have the model type of SigLIP 1, and Gemma's tokenizer ignores do_lower_case."""
    symbols = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOP"]
    tokenizer = transformers.GemmaTokenizer(vocab={each: i for i, each in enumerate(symbols)}, merges=[])
    text = {**TEXT, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "vocab_size": len(symbols)}
    config = transformers.SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=VISION)
    model = transformers.SiglipModel(config).eval()
    backbone = Backbone(model, transformers.SiglipProcessor(image_processor=crop_processor(), tokenizer=tokenizer))
    ids = tokenizer(["fog mile"], padding="max_length", max_length=10, padding_side="right", return_tensors="pt")
    cased = tokenizer(["Fog Mile"], padding="max_length", max_length=10, padding_side="right", return_tensors="pt")
    assert not torch.equal(ids["input_ids"], cased["input_ids"]), "the tokenizer drops the case: this shows nothing"
    with torch.no_grad():
        by_hand = model.get_text_features(input_ids=ids["input_ids"]).pooler_output
    for text in ("fog mile", "Fog Mile"):
        assert torch.equal(backbone.text_embeds(text), by_hand)
    assert backbone.provenance()["text_settings"]["lower_case"] is True

    path = shutil.copytree(folders["SiglipModel"], tmp_path / "siglip") / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_lower_case": True}))
    for folder, same in (
        (tmp_path / "siglip", True),
        (folders["SiglipModel"], False),
        (folders["Siglip2Model"], True),
    ):
        backbone = Backbone.from_pretrained(folder)
        assert torch.equal(backbone.text_embeds("a red circle"), backbone.text_embeds("a Red Circle")) is same, folder


def test_the_keys_of_a_dict_and_the_columns_of_a_table_are_not_embedded(siglip):
    table = pd.DataFrame({"caption": CAPTIONS})
    for read, items in (
        (siglip.text_embeds, {"a red circle": 1}),
        (siglip.text_embeds, table),
        (siglip.image_embeds, table),
    ):
        with pytest.raises(TypeError, match=f"such as one column, not a {type(items).__name__}"):
            read(items)
    assert torch.equal(siglip.text_embeds(pd.Series(CAPTIONS)), siglip.text_embeds(CAPTIONS))
