"""A small backbone that reads pictures for tasks."""

import pytest


@pytest.fixture(scope="session")
def tiny(backbones):
    return backbones["SiglipModel"]
