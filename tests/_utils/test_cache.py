"""Caches are kept where they can be written, and never stop a run."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from huggingface_hub import constants

from hf_msae._utils import cache


def test_tests_leave_the_cache_of_the_user_alone():
    assert str(cache.cache_root()) == os.environ["HF_MSAE_CACHE"], "which processes that tests start inherit"
    temporary = Path(tempfile.gettempdir())
    assert temporary in cache.cache_root().parents
    assert temporary in Path(constants.HF_HOME).parents


def test_no_variable_of_the_user_leads_tests_elsewhere():
    kinds = ("HF_HUB", "HUGGINGFACE_HUB", "HF_ASSETS", "HUGGINGFACE_ASSETS", "HF_XET")
    program = """
import tests.conftest
from huggingface_hub import constants
print(constants.HF_HOME, constants.HF_HUB_CACHE, constants.HF_ASSETS_CACHE, constants.HF_XET_CACHE)
"""
    env = {**os.environ, **{f"{kind}_CACHE": "/of/the/user" for kind in kinds}}
    env.pop("PYTEST_XDIST_WORKER", None)
    root = Path(__file__).parents[2]
    printed = subprocess.check_output([sys.executable, "-c", program], cwd=root, env=env, text=True)
    home, *others = printed.split()
    assert all(other.startswith(home) for other in others), printed


def test_the_cache_is_in_hf_home_or_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_MSAE_CACHE", raising=False)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    assert cache.cache_folder("indexes") == tmp_path / "home" / "hf_msae" / "indexes"
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path / "other"))
    assert cache.cache_folder("indexes") == tmp_path / "other" / "indexes"
    assert list((tmp_path / "other" / "indexes").iterdir()) == []


def test_one_warning_where_it_cannot_be_written_to(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(cache.logger, "warning", messages.append)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path / "file" / "cache"))  # the superuser ignores permissions
    first, second = cache.cache_folder("indexes"), cache.cache_folder("vocabularies")
    assert first.is_dir() and second.is_dir() and first.parent == second.parent
    assert len(messages) == 1 and "HF_MSAE_CACHE" in messages[0] and str(tmp_path / "file") in messages[0]
