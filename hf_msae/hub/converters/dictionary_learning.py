"""dictionary_learning (github.com/saprmarks/dictionary_learning), and what uses it: sae-for-vlm, SAEBench.

`ae.pt` beside `config.json`, or `checkpoints/ae_STEP.pt` below it: a state dict of one of

    AutoEncoder             encoder.weight (n, d), encoder.bias (n,), decoder.weight (d, n), bias (d,)
    AutoEncoderNew          encoder.weight, encoder.bias, decoder.weight, decoder.bias (d,)
    GatedAutoEncoder        encoder.weight, r_mag, gate_bias, mag_bias (n,), decoder.weight, decoder_bias (d,)
    AutoEncoderTopK, BatchTopKSAE
                            encoder.weight, encoder.bias, decoder.weight, b_dec (d,), k, threshold
    JumpReluAutoEncoder     W_enc (d, n), b_enc (n,), W_dec (n, d), b_dec (d,), threshold (n,)
    MatryoshkaBatchTopKSAE  W_enc, b_enc, W_dec, b_dec, k, threshold, group_sizes

All take their last bias off before encoding, except AutoEncoderNew and JumpReluAutoEncoder. The tensors tell which it
is; of the two with the same, config.json does. With normalize_activations in training, biases and threshold are
scaled back before they are saved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .places import hook_point_of, place_of, tower_of
from .reading import (
    check_shapes,
    finite_number,
    gated_as_jump_relu,
    k_of,
    matrix_shape,
    names_in_torch_file,
    reached,
    settings_in,
    tensors_of,
    the_one,
    whole_number,
    word,
)
from .source import CheckpointSource

_FILE = re.compile(r"(?:.*/)?ae(?:_(?P<step>\d+))?\.pt")
_LINEAR = {"encoder.weight", "encoder.bias", "decoder.weight"}
_PARAMETERS = {"W_enc", "b_enc", "W_dec", "b_dec"}
_CLASSES = {
    "AutoEncoder": _LINEAR | {"bias"},
    "AutoEncoderNew": _LINEAR | {"decoder.bias"},
    "GatedAutoEncoder": {"encoder.weight", "decoder.weight", "r_mag", "gate_bias", "mag_bias", "decoder_bias"},
    "AutoEncoderTopK": _LINEAR | {"b_dec"},
    "BatchTopKSAE": _LINEAR | {"b_dec"},
    "JumpReluAutoEncoder": _PARAMETERS | {"threshold"},
    "MatryoshkaBatchTopKSAE": _PARAMETERS | {"k", "threshold", "group_sizes"},
}
"""The tensors of each class, without those that only some versions have."""

_COUNTERS = ("k", "group_sizes")
_OPTIONAL = {"AutoEncoderTopK": {"k", "threshold"}, "BatchTopKSAE": {"k", "threshold"}}
_OTHER_NAMES = {"MatroyshkaBatchTopKSAE": "MatryoshkaBatchTopKSAE"}
"""What classes were called before."""

# sae-for-vlm's folders: imagenet_train_activations_clip-vit-large-patch14-336_22_post_mlp_residual_batch_top_k_20_x8
_SAE_FOR_VLM = re.compile(r"activations_(?P<model>[^/]+?)_(?P<layer>\d+)_post_mlp_residual(?P<kind>_batch_top_k)?")
_OWNERS = {"clip-vit-large-patch14-336": "openai", "siglip-so400m-patch14-384": "google"}


def recognises(source: CheckpointSource) -> bool:
    """Whether there is an `ae.pt` or `ae_STEP.pt`, or a single other file with the tensors of one of the classes."""
    if _candidates(source):
        return True
    files = source.matching("*.pt", "*.pth")
    if len(files) != 1:
        return False
    names = names_in_torch_file(source.path(files[0]))
    # Without its name, only what no other library's files hold.
    own = ("GatedAutoEncoder", "AutoEncoderTopK", "MatryoshkaBatchTopKSAE")
    return any(names >= _CLASSES[each] for each in own)


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Raises:
    ValueError: several checkpoints, of which one has to be named; one that does what an MSAE cannot; one of
        which nothing tells whether it is top-k or batch top-k; or a damaged one.
    """
    file = _file(source)
    name = source.full_name(file)
    tensors = tensors_of(source.read_torch(file), name, _COUNTERS)
    config, trainer = _trainer(source, file, name)
    notes: list[str] = []
    kind = _class(tensors, config, trainer, overrides, name, notes)
    if "k" not in tensors and trainer.get("k") is None:
        trainer = {**trainer, "k": overrides.get("k")}
    checkpoint = _READERS[kind](tensors, trainer, name, notes)
    checkpoint.config |= _origin(trainer, name, overrides, notes)
    checkpoint.notes = notes
    return checkpoint


def _candidates(source: CheckpointSource) -> list[str]:
    return [file for file in source.files if _FILE.fullmatch(file)]


def _file(source: CheckpointSource) -> str:
    """The final state, or else the latest of one training."""
    candidates = _candidates(source)
    final = [file for file in candidates if file.rpartition("/")[2] == "ae.pt"]
    if len(final) == 1 and len({file.rpartition("/")[0].removesuffix("checkpoints") for file in candidates}) <= 2:
        return final[0]
    if not final and candidates and len({file.rpartition("/")[0] for file in candidates}) == 1:
        return max(candidates, key=lambda file: int(_FILE.fullmatch(file)["step"]))
    return the_one(final or candidates or source.matching("*.pt", "*.pth"), source.name, "ae.pt")


def _trainer(source: CheckpointSource, file: str, name: str) -> tuple[str | None, Mapping[str, Any]]:
    """The config.json that lies beside it, and what it says of the training; (None, {}) without one."""
    folder = file.rpartition("/")[0]
    for place in dict.fromkeys((folder, folder.removesuffix("checkpoints").rstrip("/"))):
        config = f"{place}/config.json".lstrip("/")
        if source.has(config):
            return source.full_name(config), settings_in(source.read_json(config), "trainer", source.full_name(config))
    return None, {}


def _class(
    tensors: Mapping[str, torch.Tensor],
    config: str | None,
    trainer: Mapping[str, Any],
    overrides: Mapping[str, Any],
    name: str,
    notes: list[str],
) -> str:
    keys = set(tensors)
    fitting = [kind for kind, needed in _CLASSES.items() if needed <= keys <= needed | _OPTIONAL.get(kind, set())]
    if not fitting:
        raise ValueError(
            f"{name} holds {', '.join(sorted(keys))}: the tensors of none of {', '.join(_CLASSES)}, which are read"
        )
    said = word(trainer, "dict_class", None, f"trainer in config.json of {name}")
    if said is not None:
        said = _OTHER_NAMES.get(said, said)
        if said not in fitting:
            raise ValueError(
                f"config.json of {name} says {trainer['dict_class']!r}, but the file holds the tensors of "
                f"{' or '.join(fitting)}: they do not belong together, or hf_msae does not know that class"
            )
        return said
    if len(fitting) == 1:
        return fitting[0]
    if "threshold" not in keys:  # versions before there was one had no batch top-k
        return "AutoEncoderTopK"
    if overrides.get("activation") in ("topk", "batch_topk"):
        return "AutoEncoderTopK" if overrides["activation"] == "topk" else "BatchTopKSAE"
    if (found := _SAE_FOR_VLM.search(name)) and found["kind"]:
        notes.append("Taken for a BatchTopKSAE by the name of its folder; no config.json tells its class.")
        return "BatchTopKSAE"
    untold = f"{config} tells no trainer.dict_class" if config else f"{name} has no config.json beside it"
    raise ValueError(
        f"{untold}, and the tensors are those of both AutoEncoderTopK and BatchTopKSAE: say activation=topk or "
        "activation=batch_topk"
    )


def _linear(tensors: Mapping[str, torch.Tensor], bias: str, name: str) -> dict[str, torch.Tensor]:
    """Encoder, decoder and biases of what is made of nn.Linear: weights (out, in)."""
    n, d = matrix_shape(tensors, "encoder.weight", name)
    check_shapes(tensors, {"decoder.weight": (d, n), "encoder.bias": (n,), bias: (d,)}, name)
    return {
        "encoder": tensors["encoder.weight"].T,
        "decoder": tensors["decoder.weight"].T,
        "latent_bias": tensors.get("encoder.bias"),
        "output_bias": tensors[bias],
    }


def _parameters(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    d, n = matrix_shape(tensors, "W_enc", name)
    check_shapes(tensors, {"W_dec": (n, d), "b_enc": (n,), "b_dec": (d,)}, name)
    return {
        "encoder": tensors["W_enc"],
        "decoder": tensors["W_dec"],
        "latent_bias": tensors["b_enc"],
        "output_bias": tensors["b_dec"],
    }


def _relu(tensors, trainer, name, notes) -> ForeignCheckpoint:
    parts = _linear(tensors, "bias", name)
    norms = torch.linalg.vector_norm(parts["decoder"].double(), dim=1)
    if not torch.allclose(norms, torch.ones_like(norms), atol=1e-4):
        notes.append(
            "The rows of its dictionary are not of unit norm. dictionary_learning's from_pretrained scales them, and "
            "the codes the other way (unless normalize_decoder=False); here they stay as they are stored. "
            "Reconstructions are the same."
        )
    return ForeignCheckpoint(
        "dictionary_learning", **parts, input_bias=parts["output_bias"], config={"activation": "relu"}
    )


def _relu_new(tensors, trainer, name, notes) -> ForeignCheckpoint:
    parts = _linear(tensors, "decoder.bias", name)
    notes.append(
        "Codes are those of AutoEncoderNew.encode; with output_features=True it multiplies them with the norms of the "
        "dictionary's rows."
    )
    return ForeignCheckpoint("dictionary_learning", **parts, config={"activation": "relu"})


def _gated(tensors, trainer, name, notes) -> ForeignCheckpoint:
    parts = _linear(tensors, "decoder_bias", name)
    n = parts["encoder"].shape[1]
    check_shapes(tensors, dict.fromkeys(("r_mag", "gate_bias", "mag_bias"), (n,)), name)
    encoder, latent_bias, threshold = gated_as_jump_relu(
        parts["encoder"], tensors["gate_bias"], tensors["mag_bias"], tensors["r_mag"]
    )
    notes.append("A gated autoencoder: it computes what JumpReLU does with other thresholds, and becomes that.")
    parts |= {"encoder": encoder, "latent_bias": latent_bias, "threshold": threshold}
    return ForeignCheckpoint(
        "dictionary_learning", **parts, input_bias=parts["output_bias"], config={"activation": "jump_relu"}
    )


def _top_k(tensors, trainer, name, notes) -> ForeignCheckpoint:
    parts = _linear(tensors, "b_dec", name)
    config = {"activation": "topk", "k": _k(tensors, trainer, name)}
    return ForeignCheckpoint("dictionary_learning", **parts, input_bias=parts["output_bias"], config=config)


def _batch_top_k(tensors, trainer, name, notes) -> ForeignCheckpoint:
    parts = _linear(tensors, "b_dec", name)
    threshold = _threshold(tensors, name, notes)
    config = {"activation": "batch_topk", "k": _k(tensors, trainer, name)}
    bias = parts["output_bias"]
    return ForeignCheckpoint("dictionary_learning", **parts, input_bias=bias, threshold=threshold, config=config)


def _jump_relu(tensors, trainer, name, notes) -> ForeignCheckpoint:
    parts = _parameters(tensors, name)
    check_shapes(tensors, {"threshold": (parts["encoder"].shape[1],)}, name)
    # Its ReLU makes thresholds below 0 act as 0. apply_b_dec_to_input is set for SAELens' checkpoints alone.
    threshold = tensors["threshold"].double().clamp_min(0)
    return ForeignCheckpoint("dictionary_learning", **parts, threshold=threshold, config={"activation": "jump_relu"})


def _matryoshka(tensors, trainer, name, notes) -> ForeignCheckpoint:
    parts = _parameters(tensors, name)
    n = parts["encoder"].shape[1]
    if tensors["group_sizes"].dim() != 1:
        shape = tuple(tensors["group_sizes"].shape)
        raise ValueError(f"group_sizes of {name} has shape {shape}, expected one number for each group")
    sizes = [whole_number(size, f"an entry of group_sizes of {name}") for size in tensors["group_sizes"].tolist()]
    if sum(sizes) != n:
        raise ValueError(f"group_sizes of {name} are {sizes}, {sum(sizes)} together, but there are {n} latents")
    config = {
        "activation": "batch_topk",
        "k": _k(tensors, trainer, name),
        "nesting": "prefix",
        "nesting_widths": list(accumulate(sizes)),
    }
    weights = trainer.get("group_weights")
    if weights is not None:
        what = f"group_weights in config.json of {name}"
        if not isinstance(weights, list) or len(weights) != len(sizes):
            raise ValueError(f"{what} is {weights!r}, expected {len(sizes)} numbers, as many as there are groups")
        weights = [finite_number(weight, f"an entry of {what}") for weight in weights]
    if weights and min(weights) > 0:
        config["nesting_weights"] = "uniform" if len(set(weights)) == 1 else weights
    threshold, bias = _threshold(tensors, name, notes), parts["output_bias"]
    return ForeignCheckpoint("dictionary_learning", **parts, input_bias=bias, threshold=threshold, config=config)


_READERS = {
    "AutoEncoder": _relu,
    "AutoEncoderNew": _relu_new,
    "GatedAutoEncoder": _gated,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "JumpReluAutoEncoder": _jump_relu,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}


def _k(tensors: Mapping[str, torch.Tensor], trainer: Mapping[str, Any], name: str) -> int:
    stored, said = tensors.get("k"), trainer.get("k")
    if stored is None:
        return k_of(said, {}, f"k of {name} or of its config.json")
    k = whole_number(stored, f"k of {name}")
    if said is not None and whole_number(said, f"k in config.json of {name}") != k:
        raise ValueError(f"{name} holds k={k}, but its config.json says k={said}: they do not belong together")
    return k


def _threshold(tensors: Mapping[str, torch.Tensor], name: str, notes: list[str]) -> float:
    if "threshold" not in tensors:
        raise ValueError(f"{name} does not hold a threshold, without which batch top-k cannot encode")
    threshold = finite_number(tensors["threshold"], f"threshold of {name}")
    if threshold >= 0:
        return reached(threshold)
    notes.append(
        f"Its threshold is {threshold:g}: training ended before it was set. Codes keep every positive activation, as "
        "BatchTopKSAE.encode then does; activation=topk keeps the k largest of each embedding instead."
    )
    return 0.0


def _origin(trainer: Mapping[str, Any], name: str, overrides: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Backbone and hook point, from config.json or from the names of sae-for-vlm's folders."""
    if found := _SAE_FOR_VLM.search(name):
        model = found["model"]
        config = {"base_model_name_or_path": f"{_OWNERS[model]}/{model}"} if model in _OWNERS else {}
        return config | place_of(f"vision.layers.{found['layer']}", None, overrides, name)
    model, module = (word(trainer, key, None, f"config.json of {name}") for key in ("lm_name", "submodule_name"))
    layer = trainer.get("layer")
    config = {"base_model_name_or_path": model} if model else {}
    if overrides.get("hook_point") is not None:
        return config
    # With its notes only where the tower comes from the model's name.
    point, guessed = hook_point_of(module, None), []
    if point is None:
        tower = tower_of(model, notes=guessed)
        point = hook_point_of(module, tower)
        if point is None and tower and (found := re.fullmatch(r"resid_post_layer_(\d+)", module or "")):
            point = f"{tower}.layers.{found[1]}"
        notes += guessed if point is not None else []
    place = None
    if model or module:
        place = f"{module or 'an unnamed module'} in layer {layer} of {model or 'an unnamed model'}"
    return config | place_of(point, place, overrides, name)
