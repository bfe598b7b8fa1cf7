"""A mistyped dataset is refused at once where the Hub cannot be reached."""

import datasets
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HTTPError

from hf_msae._utils.reachability import refuse_unreachable


@pytest.fixture
def unreachable(tmp_path, monkeypatch):
    asked = []

    def dataset_info(self, name, **kwargs):
        asked.append(name)
        raise HTTPError("no route to host")

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return asked


@pytest.mark.parametrize("name", ["typo", "user/typo"])
def test_it_is_asked_once(unreachable, name):
    with pytest.raises(FileNotFoundError, match=f"{name}.*no route to host"):
        refuse_unreachable(name)
    assert unreachable == [name]


@pytest.mark.parametrize("folder", ["hub/datasets--user--known", "datasets/user___known"])
def test_what_is_in_a_cache_is_not_asked_for(unreachable, tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    refuse_unreachable("user/known")
    assert unreachable == []
