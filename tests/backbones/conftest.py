"""Tiny backbones, loaded."""

import datasets  # noqa: F401  (first, so that its import time is nobody's test)
import pytest

from hf_msae.backbones import Backbone


@pytest.fixture(scope="module")
def clip(folders):
    return Backbone.from_pretrained(folders["CLIPModel"])


@pytest.fixture(scope="module")
def siglip(folders):
    return Backbone.from_pretrained(folders["SiglipModel"])
