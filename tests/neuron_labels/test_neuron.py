import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessor

from hf_msae import VisionTextMSAE
from hf_msae.neuron_labels import Control, FunctionNeuron, MSAENeuron, UnitNeuron
from tests.tiny_backbones import pictures as tiny_pictures
from tests.vision_text_models import an_msae


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


def test_functions_of_one_name_do_not_share_control_pictures(pictures):
    control = Control(pictures * 8, progress=False)
    first = control.activations(FunctionNeuron(lambda images: range(len(images)), "mine"))
    second = control.activations(FunctionNeuron(lambda images: [-each for each in range(len(images))], "mine"))
    assert first.tolist() == [-each for each in second.tolist()]


def test_units_with_other_preparation_do_not_share_features(pictures):
    def prepare(factor):
        return lambda images: torch.stack(
            [torch.from_numpy(np.asarray(each) * factor).mean((0, 1)) for each in images]
        )

    network, single = torch.nn.Identity(), prepare(1.0)
    one, same, other = (UnitNeuron(network, 0, each) for each in (single, single, prepare(2.0)))
    assert one.source == same.source != other.source
    assert one.key == same.key == other.key  # between runs, a function is known by its name


def test_a_model_whose_weights_change_has_another_source(pictures):
    network = torch.nn.Linear(3, 2)
    before = UnitNeuron(network, 0, list).source
    assert UnitNeuron(network, 0, list).source == before
    with torch.no_grad():
        network.weight += 1
    assert UnitNeuron(network, 0, list).source != before


def test_latents_of_msaes_that_differ_in_k_differ(scenes_model):
    msae = scenes_model.msae
    before = MSAENeuron(scenes_model, 3).key
    other = type(msae)(type(msae.config).from_dict(msae.config.to_dict() | {"k": 8}))
    other.load_state_dict(msae.state_dict())
    model = VisionTextMSAE(scenes_model.backbone, other)
    assert MSAENeuron(model, 3).key != before and MSAENeuron(model, 3).source == MSAENeuron(scenes_model, 3).source


def test_latents_are_read_in_parts(scenes_model, pictures, monkeypatch):
    neuron = MSAENeuron(scenes_model, 417)
    features = neuron.features(pictures)
    whole, encode, sizes = neuron.read(features), scenes_model.msae.encode, []
    monkeypatch.setattr("hf_msae.neuron_labels.neuron._MOST_CODES", 2 * scenes_model.msae.config.num_latents)
    monkeypatch.setattr(scenes_model.msae, "encode", lambda part, k: sizes.append(len(part)) or encode(part, k))
    np.testing.assert_allclose(neuron.read(features), whole, rtol=1e-5)
    assert sizes == [2, 1]


def test_units_of_half_precision_models_and_lists_of_tensors(pictures):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(96 * 96 * 3, 2)).to(torch.bfloat16)
    network.train()

    def prepare(images):
        return {"input": [torch.from_numpy(np.asarray(each) / np.float32(255)) for each in images]}

    neuron = UnitNeuron(network, 1, prepare)
    network.train()
    expected = network(torch.stack(prepare(pictures)["input"]).bfloat16())[:, 1].detach().float()
    np.testing.assert_array_equal(neuron(pictures), expected)
    assert not network.training


def test_a_module_that_is_not_called_is_named_and_hooks_are_removed(pictures):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)

        def forward(self, values):
            if len(values) == 1:
                raise RuntimeError("one picture")
            return self.used(values)

    def prepare(images):
        return torch.stack([torch.from_numpy(np.asarray(each) / np.float32(255)).mean((0, 1)) for each in images])

    network = Network()
    with pytest.raises(ValueError, match="'unused'"):
        UnitNeuron(network, 0, prepare, "unused")(pictures)
    with pytest.raises(RuntimeError, match="one picture"):
        UnitNeuron(network, 0, prepare, "used")(pictures[:1])
    assert not network.used._forward_hooks and not network.unused._forward_hooks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_functions_may_return_tensors_of_any_type(pictures, dtype):
    values = torch.tensor([1, 2, 3], dtype=dtype)
    assert FunctionNeuron(lambda _: values)(pictures).tolist() == [1.0, 2.0, 3.0]
    assert FunctionNeuron(lambda _: list(values))(pictures).tolist() == [1.0, 2.0, 3.0]


def test_tokens_are_not_kept(pictures):
    model = VisionTextMSAE.from_pretrained("scenes-patches")
    neuron = MSAENeuron(model, 7)
    features = neuron.features(pictures)
    assert features.shape == (3, model.msae.config.num_latents)
    expected = model.image_latents(pictures).amax(dim=1).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(neuron(pictures), expected[:, 7], rtol=1e-5, atol=1e-6)
    assert MSAENeuron(model, 7, k=4).source != neuron.source == MSAENeuron(model, 8).source


def test_padding_is_no_part_of_a_picture(backbones):
    backbone, wide = backbones["Siglip2Model"], tiny_pictures(3, (20, 60))  # keeps the shape of pictures
    model = VisionTextMSAE(backbone, an_msae(backbone, "vision.layers.1"))
    with torch.no_grad():
        patches = [model.msae.encode(backbone.read_patches("vision.layers.1", each)[0]) for each in wide]
    assert len(patches[0]) < backbone.read("vision.layers.1", wide).shape[1]
    expected = np.stack([each.amax(dim=0).numpy() for each in patches])
    np.testing.assert_allclose(MSAENeuron(model, 0).features(wide), expected, rtol=1e-4, atol=1e-5)
