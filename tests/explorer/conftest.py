"""One explorer for all tests: the model that comes with the package, and a few scenes."""

import pytest


@pytest.fixture(scope="session")
def explorer():
    from hf_msae.explorer import Explorer, ExplorerSettings

    return Explorer.load(ExplorerSettings(dataset="scenes:test:200:7"))
