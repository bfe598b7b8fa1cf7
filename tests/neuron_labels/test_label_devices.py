"""Models run on the CPU unless a device is named, as everywhere."""

import pytest
import torch

from hf_msae.neuron_labels import DiffusersImager, TransformersProposer
from hf_msae.neuron_labels.imagers import diffusion
from hf_msae.neuron_labels.proposers import transformers_model


class LoadedError(Exception):
    """Carries the device that a model was to be loaded to."""


@pytest.mark.parametrize(("given", "expected"), [(None, "cpu"), ("cuda", "cuda")])
@pytest.mark.parametrize(
    ("module", "make"), [(diffusion, DiffusersImager), (transformers_model, TransformersProposer)]
)
def test_a_model_is_loaded_to_the_cpu_or_to_where_it_should_be(given, expected, module, make, monkeypatch):
    def load(*arguments):
        (device,) = {str(each) for each in arguments if str(each) in ("cpu", "cuda")}
        raise LoadedError(device)

    monkeypatch.setattr(module, "_load", load)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(LoadedError, match=expected):
        make("some/model", device=given)
