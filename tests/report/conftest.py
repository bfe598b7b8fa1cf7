"""A small world for reports: latent j is dimension j, and the color of a picture says which row it is of."""

from dataclasses import dataclass

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_msae import VisionTextMSAE
from hf_msae.bias import bias_report
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import evaluate_msae
from hf_msae.plotting.look import SvgFigure
from hf_msae.report import write_report
from hf_msae.report.sections import bias, quality, steering
from tests.identity_msae import identity_msae
from tests.report.page_reader import Page

WIDTH, ROWS, K = 24, 200, 6
QUICK = {"num_concepts": 0, "num_searches": 0, "num_explained": 0, "progress": False, "k": K}


@dataclass
class World:
    values: np.ndarray
    embeddings: object
    model: object
    images: object
    bias: list
    metrics: dict


def color_of(row):
    return (40 * (row % 6) + 20, 40 * (row // 6 % 6) + 20, 40 * (row // 36) + 20)


def row_of(picture):
    """The row whose color a picture has."""
    colors = np.array([color_of(row) for row in range(ROWS)])
    distance = np.abs(colors - np.asarray(picture).reshape(-1, 3).mean(axis=0)).sum(axis=1)
    assert distance.min() < 20
    return int(distance.argmin())


def names(**columns):
    """Concepts n0, n1, ... of falling similarity; q-values and other columns as given."""
    columns = {"q_value": np.where(np.arange(WIDTH) < 8, 0.012, 0.9), **columns}
    columns = {name: values for name, values in columns.items() if values is not None}
    similarity = np.linspace(0.9, 0.5, WIDTH)
    return ConceptTable.from_columns(
        [f"n{i}" for i in range(WIDTH)], similarity, [f"r{i}" for i in range(WIDTH)], similarity / 3, **columns
    )


@pytest.fixture(scope="session")
def world(backbones):
    """Latents 0 to 7 have a validated name. 7 is active in no row; where 4 is active, 5 is too; 6 never with 3."""
    rng = np.random.default_rng(0)
    z = rng.exponential(size=(ROWS, WIDTH)) * (rng.uniform(size=(ROWS, WIDTH)) < 0.3) + 0.01
    z[:, 8:] *= 0.3  # so that the named ones are among the strongest
    z[:, 7] = 0
    rows = np.arange(ROWS)
    z[:, 4] = np.where(rows % 5 == 0, 3 + z[:, 4], 0)
    z[:, 5] = np.where((rows % 5 == 0) | (rows % 4 == 1), 4 + z[:, 5], 0)
    z[:, 3] = np.where(z[:, 6] > 0.01, 0, 1 + z[:, 3])
    z = z.astype(np.float32)
    msae = identity_msae(WIDTH, [4, WIDTH])
    embeddings = load_embeddings(z)
    kinds = {"image": datasets.Image(), "n0": datasets.Value("bool"), "n1": datasets.Value("bool")}
    kinds |= {"n2": datasets.Value("int64"), "n3": datasets.Value("bool"), "label": datasets.Value("string")}
    stored = {
        "image": [Image.new("RGB", (200, 100), color_of(row)) for row in range(ROWS)],
        "n0": [bool(value) for value in z[:, 0] + rng.normal(size=ROWS) > 0.5],
        "n1": [None if row % 3 == 0 else bool(z[row, 1] + rng.normal() > 0.4) for row in range(ROWS)],
        "n2": [1] * ROWS,
        "n3": [True] * ROWS,
        "label": ["x"] * ROWS,
    }
    images = datasets.Dataset.from_dict(stored, features=datasets.Features(kinds))
    model = VisionTextMSAE(backbones["CLIPModel"], msae, names())

    def classifier(x):
        return (4 * x[:, 0] - 2 * x[:, 1] - 1).sigmoid()

    settings = {"latents": range(7), "num_null": 20, "num_bootstrap": 100, "progress": False}
    bias = bias_report(msae, embeddings, classifier, concepts=model.concepts, target="a <cat>", **settings)
    return World(z, embeddings, model, images, [bias], evaluate_msae(msae, embeddings, progress=False).to_dict())


@pytest.fixture
def with_names(world):
    """The world's model with other names, or with none."""

    def with_names(concepts):
        return VisionTextMSAE(world.model.backbone, world.model.msae, concepts)

    return with_names


@pytest.fixture(scope="session", autouse=True)
def few_panels():
    """A figure of bias has two panels, since each takes 0.1 s to draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bias, "_DRAWN", 2)
        yield


@pytest.fixture(scope="session")
def written(world, few_panels, tmp_path_factory):
    """The path of a page with everything."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_report(path, world.model, world.embeddings, world.images, bias=world.bias, k=K, progress=False)


@pytest.fixture(scope="session")
def page(written):
    return Page(written)


@pytest.fixture
def no_figure(monkeypatch):
    """Figures are not drawn, which takes longer than all else of a small page; `page` has some."""

    def undrawn(figure, alt):
        return SvgFigure("data:,", alt, 100)

    for section in (bias, quality, steering):
        monkeypatch.setattr(section, "svg_figure", undrawn)
    monkeypatch.setattr(quality, "plot_quality_against_k", lambda metrics: None)


@pytest.fixture
def write(world, tmp_path, no_figure):
    """Write a page of little, or of what is asked for, and read it."""

    def write(model=None, embeddings=None, images=None, **settings):
        path = tmp_path / "report.html"
        return Page(
            write_report(
                path,
                model or world.model,
                embeddings or world.embeddings,
                images,
                **{**QUICK, "metrics": world.metrics, **settings},
            )
        )

    return write


@pytest.fixture(scope="session")
def strong(world):
    """Activations where they are among the K strongest of their row, 0 elsewhere."""
    x = torch.from_numpy(world.values)
    values, latents = world.model.msae.encode_topk(x, K)
    return torch.zeros_like(x).scatter_(1, latents, values).detach().numpy()
