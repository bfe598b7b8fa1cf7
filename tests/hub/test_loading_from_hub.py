"""Models are loaded from the Hub by id, revision and subfolder, with their names, and offline from the cache."""

import pytest
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import save_file
from transformers import AutoModel

from hf_msae import MSAEConfig, MSAEModel, VisionTextMSAE
from hf_msae.concepts import Vocabulary, name_latents
from hf_msae.hub.reading.opening import concept_files, load_msae
from tests.stub_hub import Repo


def saved(folder, seed, named=False):
    torch.manual_seed(seed)
    config = MSAEConfig(d_in=128, num_latents=32, nesting_ks=[4, 32], base_model_name_or_path="hf_msae/scenes-siglip")
    model = MSAEModel(config)
    model.save_pretrained(folder)
    if named:
        table = name_latents(model, Vocabulary(["red", "green", "blue"]), torch.randn(3, 128))
        table.save(folder / "concepts" / "w.parquet")
    return model


def contents(folder, prefix=""):
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two versions of tester/model, the second with names, and tester/many with models in subfolders only."""
    place = tmp_path_factory.mktemp("models")
    encoders = {}
    for name, seed in (("first", 1), ("second", 2), ("third", 3)):
        encoders[name] = saved(place / name, seed, named=name != "first").encoder[0, :3].tolist()
    one, many = Repo(), Repo()
    first = one.commit("main", contents(place / "first"), "first")
    one.commit("main", contents(place / "second"), "second")
    one.names["v1"] = first
    many.commit("main", contents(place / "second", "a/") | contents(place / "third", "b/c/"), "many")
    return {("model", "tester/model"): one, ("model", "tester/many"): many}, encoders, first


def test_weights_that_are_no_floating_point_numbers_are_refused(at_hub, tmp_path):
    model = saved(tmp_path / "model", 1)
    tensors = {
        key: tensor.to(torch.int8) if key == "encoder" else tensor for key, tensor in model.state_dict().items()
    }
    save_file(tensors, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    repo = at_hub.repos["model", "tester/model"] = Repo()
    repo.commit("main", contents(tmp_path / "model") | contents(tmp_path / "model", "a/"), "integers")
    for subfolder in ("", "a"):
        with pytest.raises(ValueError, match=r"model\.safetensors: encoder holds I8"):
            MSAEModel.from_pretrained("tester/model", subfolder=subfolder)


def load_all(first):
    def start(model):
        return model.encoder[0, :3].tolist()

    def with_names(*args, **kwargs):
        model = VisionTextMSAE.from_pretrained(*args, **kwargs)
        return [start(model.msae), None if model.concepts is None else len(model.concepts)]

    return {
        "auto": start(AutoModel.from_pretrained("tester/model")),
        "tag": start(MSAEModel.from_pretrained("tester/model", revision="v1")),
        "commit": start(load_msae("tester/model", first)),
        "subfolder": start(AutoModel.from_pretrained("tester/many", subfolder="b/c")),
        "named": with_names("tester/model"),
        "unnamed": with_names("tester/model", revision="v1"),
        "named subfolder": with_names("tester/many", subfolder="b/c"),
    }


def test_by_id_revision_and_subfolder_with_names_and_then_offline(at_hub, models, monkeypatch):
    at_hub.repos, encoders, first = models
    expected = {
        "auto": encoders["second"],
        "tag": encoders["first"],
        "commit": encoders["first"],
        "subfolder": encoders["third"],
        "named": [encoders["second"], 32],
        "unnamed": [encoders["first"], None],
        "named subfolder": [encoders["third"], 32],
    }
    assert load_all(first) == expected
    asked = len(at_hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert load_all(first) == expected
    assert len(at_hub.requests) == asked


@pytest.mark.parametrize(
    ("load", "name", "options", "match"),
    [
        (MSAEModel.from_pretrained, "tester/many", {}, r"tester/many .*subfolder= \(--subfolder\) one of a, b/c"),
        (MSAEModel.from_pretrained, "tester/model", {"revision": "nowhere"}, "nowhere"),
        (load_msae, "tester/nothing", {}, "tester/nothing"),
        (load_msae, "tester/many", {"subfolder": "z"}, r"tester/many/z .*config\.json"),
    ],
)
def test_what_is_missing_is_named(at_hub, models, load, name, options, match):
    at_hub.repos = models[0]
    with pytest.raises(OSError, match=match):
        load(name, **options)


def test_a_download_that_was_cut_short_is_not_a_model(at_hub, models, tmp_path):
    """A file in the cache has lost its end, as after a full disk."""
    at_hub.repos = models[0]
    AutoModel.from_pretrained("tester/model")
    (weights,) = tmp_path.glob("hub-cache/models--tester--model/snapshots/*/model.safetensors")
    blob = weights.resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"tester/model .*force_download=True"):
        MSAEModel.from_pretrained("tester/model")
    MSAEModel.from_pretrained("tester/model", force_download=True)


def test_a_subfolder_is_a_name_and_not_a_pattern(at_hub, tmp_path):
    names = {"a[1]/concepts/right.parquet": b"1", "a1/concepts/wrong.parquet": b"2"}
    repo = at_hub.repos["model", "tester/odd"] = Repo()
    repo.commit("main", names, "names")
    (found,) = concept_files("tester/odd", subfolder="a[1]")
    assert found.read_bytes() == b"1"
