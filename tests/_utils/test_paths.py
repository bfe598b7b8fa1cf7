"""Mistyped paths are refused with what may have been meant; what may be a name on the Hub is left to it."""

import pytest
from huggingface_hub import constants

from hf_msae import MSAEModel
from hf_msae._utils.paths import did_you_mean, file_name, refuse_missing_path
from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.backbones.loading import locate
from hf_msae.embeddings import load_embeddings
from hf_msae.hub import convert_checkpoint
from hf_msae.hub.reading.opening import load_msae


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    (tmp_path / "outputs" / "quickstart").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    "open_it", [MSAEModel.from_pretrained, load_msae, load_embeddings, open_dataset, convert_checkpoint]
)
def test_the_closest_folder_is_suggested_without_asking_the_hub(open_it, monkeypatch):
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("the Hub was asked"))
    for name in ("outputs/quikstart", "./outputs/quikstart", "outputs/quikstart/model"):
        with pytest.raises(FileNotFoundError, match=rf"{name}.*outputs/quickstart\?"):
            open_it(name)


def test_a_backbone_may_be_on_the_hub_all_the_same():
    with pytest.raises(FileNotFoundError, match=r"quikstart'.*outputs/quickstart\?"):
        locate("./outputs/quikstart", None)


@pytest.mark.parametrize("name", ["~/no such folder", "/no such folder", "one/two/three", "../typo"])
def test_what_looks_like_a_path(name):
    with pytest.raises(FileNotFoundError, match=name):
        refuse_missing_path(name)


def test_what_may_be_on_the_hub(tmp_path):
    for name in ("user/model", "model", "outputs", "outputs/quickstart"):
        refuse_missing_path(name)
    (tmp_path / "hub" / "datasets--outputs--known").mkdir(parents=True)
    refuse_missing_path("outputs/known", "dataset")
    with pytest.raises(FileNotFoundError, match="on the Hub"):
        refuse_missing_path("outputs/known")


def test_nothing_similar_is_not_suggested(tmp_path):
    assert did_you_mean(tmp_path / "outputs" / "xyz") == ""


def test_any_text_is_part_of_the_name_of_a_file(tmp_path):
    assert file_name("hair/blond: 50%") == "hair_blond_ 50_"
    assert file_name("a" * 300) == "a" * 100 and len(file_name("ह" * 300).encode()) <= 100
