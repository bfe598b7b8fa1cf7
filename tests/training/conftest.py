"""What the tests of training share."""

import pytest


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """Skip fsync, which takes most of the time of a small checkpoint; tests/_utils tests it."""
    monkeypatch.setattr("hf_msae._utils.atomic._flush", lambda path: None)
    monkeypatch.setattr("hf_msae._utils.atomic._flush_folder", lambda folder: None)
