"""Released models: what the list says is what is loaded, from the package, from the Hub, and from others' formats."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

import hf_msae
from hf_msae import MSAEConfig, MSAEModel
from hf_msae.cli.released import main
from hf_msae.hub.converters import FORMATS
from hf_msae.hub.reading import opening
from hf_msae.hub.reading.opening import concepts_beside, load_msae
from hf_msae.hub.reading.registry import find_released, get_released
from tests.stub_hub import Repo

OURS = ["scenes-image", "scenes-text", "scenes-patches", "clipart-image"]


def test_every_entry_could_be_a_model():
    table = hf_msae.list_released()
    assert table.index.is_unique and set(OURS) <= set(table.index)
    for name in table.index:
        entry = get_released(name)
        config = MSAEConfig(
            d_in=entry.d_in,
            num_latents=entry.num_latents,
            activation=entry.activation,
            nesting="none",
            k=8 if entry.activation in ("topk", "batch_topk") else None,
            hook_point=entry.hook_point,  # refused if there is no such point
        )
        assert config.d_in == entry.d_in
        assert entry.format in ("hf_msae", *FORMATS)
        assert (entry.repo_id is None) == (name in OURS) == entry.checked


@pytest.mark.parametrize("name", OURS)
def test_ours_come_with_the_package_measured_and_named(name):
    entry = get_released(name)
    model = MSAEModel.from_released(name)
    assert type(model) is MSAEModel and not model.training
    assert model.config.hook_point == entry.hook_point
    assert model.config.base_model_name_or_path == entry.base_model_name_or_path
    assert torch.equal(load_msae(name).encoder, model.encoder)
    metrics = json.loads((Path(entry.place[0]) / "metrics.json").read_text())
    assert 0 < metrics["fvu"] < 0.1
    assert len(concepts_beside(name)) == entry.num_latents


def test_a_folder_of_the_same_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MSAEModel(MSAEConfig(d_in=8, num_latents=16)).save_pretrained("scenes-image")
    assert find_released("scenes-image") is None
    assert load_msae("scenes-image").config.d_in == 8


def test_an_unknown_name_is_told_what_is_like_it():
    with pytest.raises(KeyError, match=r"'scene-image'.*'scenes-image'"):
        MSAEModel.from_released("scene-image")
    with pytest.raises(KeyError, match="list_released"):
        MSAEModel.from_released("zzz")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"d_in": 64}, r"d_in=128.* scenes-image .*64"),
        ({"num_latents": 2048}, r"num_latents=1024.* scenes-image .*2048"),
        ({"activation": "topk"}, r"activation=relu.* scenes-image .*topk"),
    ],
)
def test_what_is_not_as_listed_is_refused(listed, message):
    with pytest.raises(ValueError, match=message):
        replace(get_released("scenes-image"), **listed).load()


def test_a_listed_hash_is_compared():
    entry = get_released("scenes-image")
    weights = Path(entry.place[0]) / "model.safetensors"
    right = sha256(weights.read_bytes()).hexdigest()
    assert replace(entry, sha256=right).load().config.d_in == entry.d_in
    with pytest.raises(ValueError, match=rf"model\.safetensors .*{right}.*{'0' * 64}"):
        replace(entry, sha256="0" * 64).load()


def test_the_command_filters(capsys):
    main(["--backbone", "CLIP-vit-large", "--hook_point", "image_embeds"])
    shown = capsys.readouterr().out
    assert "msae-clip-vit-l14" in shown and "scenes" not in shown and "saev" not in shown
    main(["--backbone", "nothing like it"])
    assert "`hf-msae released`" in capsys.readouterr().out
    main(["--json"])
    assert {each["name"] for each in json.loads(capsys.readouterr().out)} == set(hf_msae.list_released().index)


def test_the_authors_release_is_converted_from_the_hub_at_its_commit(
    at_hub, tmp_path, monkeypatch, golden_tensors, golden_figures
):
    """Their repository, with a small model of theirs in the place of the listed one."""
    entry = get_released("msae-clip-vit-l14")
    state = {name.removeprefix("weights."): t for name, t in golden_tensors.items() if name.startswith("weights.")}
    content = {"model": state, "mean_center": golden_tensors["mean"]}
    torch.save({**content, "scaling_factor": golden_figures["scaling_factor"]}, tmp_path / "golden.pth")
    golden = (tmp_path / "golden.pth").read_bytes()
    small = "ViT-L_14/centered/256_32_TopKReLU_8_RW_False_False_0.0_cc3m_ViT-L~14_train_image_96_32.pth"
    repo = at_hub.repos["model", entry.repo_id] = Repo()
    repo.names[entry.revision] = repo.commit("main", {entry.subfolder: golden, small: golden}, "release")
    repo.commit("main", {"moved.txt": b"nothing is there any more"}, "later")
    smaller = replace(entry, d_in=32, num_latents=256, subfolder=small, sha256=sha256(golden).hexdigest())
    model = smaller.load()
    assert model.config.d_in == 32 and model.config.base_model_name_or_path == "openai/clip-vit-large-patch14"
    monkeypatch.setattr(opening, "find_released", lambda name: smaller)
    dtypes = {given: load_msae(smaller.name, dtype=given).dtype for given in (None, "auto", "bfloat16", torch.float64)}
    assert list(dtypes.values()) == [torch.float32, torch.float32, torch.bfloat16, torch.float64]
    for given in ({"revision": "main"}, {"subfolder": "other"}):
        with pytest.raises(ValueError, match=f"msae-clip-vit-l14 .*{next(iter(given.values()))}"):
            load_msae(smaller.name, **given)
    with pytest.raises(ValueError, match=f"expected {'0' * 64}: msae-clip-vit-l14"):
        replace(smaller, sha256="0" * 64).load()
    with pytest.raises(ValueError, match=r"d_in=32.*msae-clip-vit-l14 .*768"):
        replace(smaller, d_in=768, sha256=None).load()
    with pytest.raises(ValueError, match=r"6144 .*768.* 256 .*32"):
        MSAEModel.from_released("msae-clip-vit-l14")


def test_a_release_of_saev_is_converted_from_the_hub_for_raw_tokens(at_hub):
    """Its repository, with a small checkpoint of saev's in the place of the listed one."""
    entry = get_released("saev-clip-vit-b16")
    checkpoint = Path(__file__).parent / "converters" / "foreign" / "saev" / "relu" / "sae.pt"
    repo = at_hub.repos["model", entry.repo_id] = Repo()
    repo.commit("main", {entry.subfolder: checkpoint.read_bytes()}, "release")
    model = replace(entry, d_in=8, num_latents=24).load()
    assert model.config.hook_point == "vision.layers.10"
    assert model.input_scale == 1 and not model.input_mean.any()
