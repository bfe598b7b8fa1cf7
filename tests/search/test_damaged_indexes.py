"""Indexes that were edited, or are another program's: the file is named, and nothing else is to be deleted."""

import io
import json
import shutil

import numpy as np
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.search import ConceptIndex
from hf_msae.search import index as search
from hf_msae.search.files import Segment
from tests.fuzzing import check_every_field

D, N, K, ROWS = 8, 40, 6, 50
X = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(0)).numpy()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MSAEModel(MSAEConfig(d_in=D, num_latents=N))


@pytest.fixture(scope="module")
def built(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("built") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_SEGMENT_ROWS", 30)
        ConceptIndex.build(folder, model, X, K, progress=False)
    return folder


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", "\xff", "[" * 100_000, json.dumps({"metadata": {}, "weight_map": {"a": "b"}})]
)
def test_the_file_of_another_program_is_left_alone(tmp_path, model, content):
    (tmp_path / "index.json").write_bytes(content.encode("latin-1"))
    for use in (ConceptIndex, ConceptIndex.build):
        with pytest.raises(ValueError, match=r"index\.json.* hf_msae .*choose another folder") as refused:
            use(tmp_path, model, X)
        assert "delete" not in str(refused.value)
    assert (tmp_path / "index.json").read_bytes() == content.encode("latin-1")
    assert [file.name for file in tmp_path.iterdir()] == ["index.json"]


def test_only_what_the_index_wrote_is_to_be_deleted(folder, model):
    with pytest.raises(ValueError, match=r"another folder, or delete index\.json and the segments"):
        ConceptIndex(folder, model, X[::-1])
    for place in ["index.json", "segment-00000", "segment-00001"]:
        (folder / place).rename(folder.parent / place)
    assert list(folder.iterdir()) == []


def test_a_field_of_another_type(folder, model):
    def read():
        assert ConceptIndex(folder, model, X).by_concepts({3: 1.0}, top=3)["row"].between(0, ROWS - 1).all()

    other_model_or_data = r"another MSAE|has \d+ rows, but"
    check_every_field(folder / "index.json", read, accepted=other_model_or_data)


def test_the_approximate_index_of_another_program(folder, model):
    pytest.importorskip("faiss")
    (folder / "approximate").mkdir()
    (folder / "approximate" / "approximate.json").write_text("{}")
    index = ConceptIndex(folder, model, X)
    for use in (index.add_approximate, lambda: index.by_embedding(torch.ones(D), approximate=True)):
        with pytest.raises(ValueError, match=r"approximate\.json was not written by hf_msae"):
            use()


def zipped(array):
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


def saved(array, allow_pickle=False):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


DAMAGES = {
    "half": lambda array: saved(array)[:-10],
    "text": lambda array: b"1,2,3",
    "zip": zipped,
    "objects": lambda array: saved(array.astype(object), allow_pickle=True),
    "header": lambda array: saved(array).replace(b"'shape': (", b"'shape': (9"),
    "shorter": lambda array: saved(array[:-1]),
    "another shape": lambda array: saved(array[..., None]),
    "text of numbers": lambda array: saved(array.astype("S8")),
    "complex": lambda array: saved(array.astype(complex)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_array_is_named(folder, model, damage):
    for name in Segment.NAMES:
        file = folder / "segment-00001" / f"{name}.npy"
        whole = file.read_bytes()
        file.write_bytes(DAMAGES[damage](np.load(file)))
        with pytest.raises(ValueError, match=rf"segment-00001/{name}\.npy.*delete index\.json and the segments"):
            ConceptIndex(folder, model, X)
        file.write_bytes(whole)
