"""A folder as the quickstart leaves it, small: a model with names, embeddings of scenes, and pictures."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings
from hf_msae.scenes import load_scenes

WIDTH, LATENTS, TRAIN, TEST = 128, 160, 140, 240
NAMED = ("red", "star", "night", "striped", "beach", "circle")


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """Latent j of the first six is the direction from scenes without the j-th of NAMED to those with it."""
    folder = tmp_path_factory.mktemp("commands")
    backbone = Backbone.from_pretrained("scenes")
    scenes = {"train": load_scenes("train", TRAIN, 3), "test": load_scenes("test", TEST, 3)}
    for split, rows in scenes.items():
        source = {"dataset": f"scenes:{split}:{len(rows)}:3"}
        extract_activations(backbone, rows, folder / split, batch_size=80, metadata=source, progress=False)
    x = load_embeddings(folder / "train")[:]
    truth = scenes["train"].select_columns(list(NAMED)).to_pandas().to_numpy(bool)
    directions = torch.randn(LATENTS, WIDTH, generator=torch.Generator().manual_seed(0))
    for place, have in enumerate(truth.T):
        directions[place] = x[have].mean(dim=0) - x[~have].mean(dim=0)
    directions = torch.nn.functional.normalize(directions, dim=1)
    config = MSAEConfig(
        d_in=WIDTH, num_latents=LATENTS, nesting_ks=[16, LATENTS], base_model_name_or_path=backbone.name_or_path
    )
    msae = MSAEModel(config)
    with torch.no_grad():
        msae.decoder.copy_(directions)
        msae.encoder.copy_(directions.T)
        msae.input_mean.copy_(x.mean(dim=0))
        msae.input_scale.fill_(8.0)
    model = folder / "model"
    msae.save_pretrained(model)
    names = [*NAMED, *(f"w{j}" for j in range(len(NAMED), LATENTS))]
    similarity = np.linspace(0.9, 0.1, LATENTS)
    validated = np.where(np.arange(LATENTS) < len(NAMED), 0.01, 0.9)
    table = ConceptTable.from_columns(names, similarity, [None] * LATENTS, np.zeros(LATENTS), q_value=validated)
    table.save(model / "concepts" / "scenes.parquet")
    scenes["test"][4]["image"].save(folder / "picture.png")
    return SimpleNamespace(
        folder=folder,
        model=model,
        msae=msae,
        table=table,
        scenes=scenes,
        train=folder / "train",
        test=folder / "test",
        picture=folder / "picture.png",
        backbone=backbone,
    )


@pytest.fixture
def refused(place, capsys):
    """Run a command with arguments that it has to refuse, each with a message that matches a pattern."""

    def refused(main, arguments, cases, model=None):
        for wrong, pattern in cases:
            with pytest.raises(SystemExit) as exit:
                main([str(each) for each in (model or place.model, *arguments, *wrong)])
            message = capsys.readouterr().err
            assert exit.value.code in (1, 2) and "Traceback" not in message
            assert re.search(pattern, message), f"{wrong}: {message}"

    return refused
