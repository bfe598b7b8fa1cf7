import pytest
import torch


@pytest.fixture(scope="module")
def backbone(backbones):
    return backbones["SiglipModel"]


@pytest.fixture
def one_thread():
    """For tests that fork: a fork lacks the threads of this process, and products may depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
