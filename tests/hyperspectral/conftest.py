"""Patches in the layout of the challenge, for each file of tests."""

import shutil

import pytest

from hf_msae.hyperspectral import make_patches


@pytest.fixture(scope="module")
def made():
    return make_patches(5, seed=14, edges=(14, 18), small_share=0.4, blind_spots=["leak"])


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("challenge")
    made.save(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")
