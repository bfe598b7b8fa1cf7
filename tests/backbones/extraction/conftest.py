import pytest
import torch

from hf_msae.backbones import Backbone


@pytest.fixture(scope="module")
def backbone(folders):
    return Backbone.from_pretrained(folders["SiglipModel"])


@pytest.fixture
def one_thread():
    """For tests that fork: a fork lacks the threads of this process, and products may depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
