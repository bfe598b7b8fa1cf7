"""Tiny backbones, loaded."""

import datasets  # noqa: F401  (first, so that its import time is nobody's test)
import pytest


@pytest.fixture(scope="module")
def clip(backbones):
    return backbones["CLIPModel"]


@pytest.fixture(scope="module")
def siglip(backbones):
    return backbones["SiglipModel"]
