import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessor

from hf_msae import VisionTextMSAE
from hf_msae.neuron_labels import FunctionNeuron, MSAENeuron, UnitNeuron


@pytest.fixture(scope="module")
def scenes_model():
    return VisionTextMSAE.from_pretrained("scenes-image")


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)) for _ in range(3)]


def test_a_latent_is_a_neuron(scenes_model, pictures):
    neuron = MSAENeuron(scenes_model, 417)
    expected = scenes_model.image_latents(pictures)[:, 417].numpy()
    np.testing.assert_allclose(neuron(pictures), expected, rtol=1e-5, atol=1e-6)
    sparse = scenes_model.image_latents(pictures, k=16)[:, 5].numpy()
    np.testing.assert_allclose(MSAENeuron(scenes_model, 5, k=16)(pictures), sparse, rtol=1e-5, atol=1e-6)


def test_latents_of_a_model_share_their_source(scenes_model):
    one, other = MSAENeuron(scenes_model, 1), MSAENeuron(scenes_model, 2)
    assert one.source == other.source and one.key != other.key
    assert MSAENeuron(scenes_model, 1).key == one.key != MSAENeuron(scenes_model, 1, k=8).key


@pytest.mark.parametrize("latent", [-1, 10**6])
def test_an_unknown_latent_is_named(scenes_model, latent):
    with pytest.raises(ValueError, match=str(latent)):
        MSAENeuron(scenes_model, latent)


def test_units_of_a_transformers_model(scenes_model, pictures):
    vision = scenes_model.backbone.model.vision_model
    processor = SiglipImageProcessor(size={"height": 96, "width": 96})
    inputs = processor(pictures, return_tensors="pt")
    with torch.no_grad():
        outputs = vision(**inputs)
    tokens = outputs.last_hidden_state
    read = {pooling: UnitNeuron(vision, 3, processor_of(processor), "encoder", pooling) for pooling in ("mean", "max")}
    hidden = vision.encoder(vision.embeddings(inputs["pixel_values"])).last_hidden_state.detach()
    np.testing.assert_allclose(read["mean"](pictures), hidden.mean(1)[:, 3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(read["max"](pictures), hidden.amax(1)[:, 3], rtol=1e-4, atol=1e-5)
    first = UnitNeuron(vision, 3, processor_of(processor), "post_layernorm")
    np.testing.assert_allclose(first(pictures), tokens[:, 0, 3], rtol=1e-4, atol=1e-5)
    whole = UnitNeuron(vision, 3, processor_of(processor))
    np.testing.assert_allclose(whole(pictures), outputs.pooler_output[:, 3], rtol=1e-4, atol=1e-5)


def processor_of(processor):
    return lambda images: processor(images, return_tensors="pt")


def test_channels_are_pooled_over_places(pictures):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 5), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(2)
    )

    def prepare(images):
        return torch.stack([torch.from_numpy(np.asarray(each).copy()).permute(2, 0, 1) / 255 for each in images])

    with torch.no_grad():
        network(prepare(pictures))
        channels = network[:2](prepare(pictures))
        outputs = network(prepare(pictures))
    np.testing.assert_allclose(UnitNeuron(network, 1, prepare, "1")(pictures), channels.mean((2, 3))[:, 1], rtol=1e-5)
    highest = UnitNeuron(network, 1, prepare, "1", pooling="max")
    np.testing.assert_allclose(highest(pictures), channels.amax((2, 3))[:, 1], rtol=1e-5)
    np.testing.assert_allclose(UnitNeuron(network, 0, prepare)(pictures), outputs[:, 0], rtol=1e-5)
    with pytest.raises(ValueError, match="unit 7"):
        UnitNeuron(network, 7, prepare, "1")(pictures)
    with pytest.raises(ValueError, match="nowhere"):
        UnitNeuron(network, 0, prepare, "nowhere")
    with pytest.raises(ValueError, match="median"):
        UnitNeuron(network, 0, prepare, pooling="median")
    assert UnitNeuron(network, 0, prepare, "1").source == UnitNeuron(network, 1, prepare, "1").source


def test_functions_return_tensors_or_lists(pictures):
    expected = [float(np.asarray(each).mean()) for each in pictures]
    assert FunctionNeuron(lambda _: expected, "mean")(pictures).tolist() == expected
    with_gradient = FunctionNeuron(lambda _: torch.tensor(expected, dtype=torch.float64, requires_grad=True))
    assert with_gradient(pictures).tolist() == expected
    with pytest.raises(TypeError, match="brightness"):
        FunctionNeuron("brightness")
