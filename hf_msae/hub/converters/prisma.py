"""ViT-Prisma (github.com/soniajoseph/ViT-Prisma): `config.json` beside `weights.pt` or `n_images_NUMBER.pt`.

W_enc (d, n), b_enc (n,), W_dec (n, d), b_dec (d,); gated ones also r_mag, b_mag and b_gate (n,), and do not use b_enc.
The code is activation((x - b_dec) @ W_enc + b_enc), the reconstruction code @ W_dec + b_dec. The weights are a state
dict, or {"cfg", "state_dict"} whose cfg is an object of vit_prisma's: that is code, and is not read; `RECIPE` makes
plain files of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checkpoint import ForeignCheckpoint
from .places import hook_point_of, place_of
from .reading import (
    check_shapes,
    flag,
    gated_as_jump_relu,
    holds_class_of,
    k_of,
    names_in_torch_file,
    settings_in,
    tensors_of,
    the_one,
    whole_number,
    word,
)
from .source import CheckpointSource, refuse_other_keys, require_keys

RECIPE = """
    saved = torch.load("{file}", weights_only=False, map_location="cpu")  # runs the file's code: only if you trust it
    torch.save(saved["state_dict"], "plain/weights.pt")
    saved["cfg"].save_config("plain/config.json")  # not needed where there is a config.json
"""
"""Run where vit_prisma is installed, in a new folder `plain`."""

_CONFIG = "config.json"
_OWN_KEYS = ("hook_point_layer", "activation_fn_str", "normalize_activations", "cls_token_only")
_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
_GATE = ("r_mag", "b_mag", "b_gate")
_PER_SAMPLE = {
    "layer_norm": "brings each embedding to mean 0 and variance 1 by itself, and back",
    "constant_norm_rescale": "scales each embedding to one length by itself, and back",
}


def recognises(source: CheckpointSource) -> bool:
    """Whether there is a config of ViT-Prisma's beside a `.pt`, or a single `.pt` that holds an object of it."""
    files = source.matching("*.pt")
    if not files:
        return False
    if source.has(_CONFIG):
        settings = source.read_json(_CONFIG)
        if "d_in" in settings and any(key in settings for key in _OWN_KEYS):
            return True
    return len(files) == 1 and holds_class_of(names_in_torch_file(source.path(files[0])), "vit_prisma")


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Raises:
    FileNotFoundError: there is no config.json.
    ValueError: weights that hold an object of vit_prisma, which is code; several files; one that does what an
        MSAE cannot; or a damaged one.
    """
    file = _file(source)
    name = source.full_name(file)
    content = _content(source, file, name)
    if isinstance(content, Mapping) and "state_dict" in content:
        refuse_other_keys(content, ("state_dict", "cfg"), name)
        content = content["state_dict"]
    tensors = tensors_of(content, name)
    if not source.has(_CONFIG):
        raise FileNotFoundError(f"{source.name} holds no {_CONFIG}, which tells what {file} computes")
    settings = source.read_json(_CONFIG)
    gated = _refuse(settings, name)
    require_keys(tensors, (*_TENSORS, *_GATE) if gated else _TENSORS, name)
    refuse_other_keys(tensors, (*_TENSORS, *_GATE) if gated else _TENSORS, name)
    d, n = _sizes(settings, name)
    check_shapes(tensors, dict(zip(_TENSORS, ((d, n), (n,), (n, d), (d,)), strict=True)), name)
    check_shapes(tensors, dict.fromkeys(_GATE, (n,)), name)
    notes: list[str] = []
    encoder, latent_bias, threshold = tensors["W_enc"], tensors["b_enc"], None
    if gated:
        encoder, latent_bias, threshold = gated_as_jump_relu(
            encoder, tensors["b_gate"], tensors["b_mag"], tensors["r_mag"]
        )
        notes.append("A gated SAE: it computes what JumpReLU does with other thresholds, and becomes that.")
    bias = tensors["b_dec"]
    return ForeignCheckpoint(
        format="prisma",
        encoder=encoder,
        decoder=tensors["W_dec"],
        latent_bias=latent_bias,
        input_bias=bias,
        output_bias=bias,
        threshold=threshold,
        config={**_activation(settings, gated, overrides, name), **_origin(settings, overrides, notes, name)},
        notes=notes,
    )


def _file(source: CheckpointSource) -> str:
    files = source.matching("*.pt")
    return "weights.pt" if "weights.pt" in files else the_one(files, source.name, ".pt file")


def _content(source: CheckpointSource, file: str, name: str) -> Any:
    try:
        return source.read_torch(file)
    except ValueError as error:
        if not holds_class_of(names_in_torch_file(source.path(file)), "vit_prisma"):
            raise
        raise ValueError(
            f"{name} holds an object of vit_prisma beside its tensors: reading it runs code, which hf_msae never "
            "does. Where vit_prisma is installed, make plain files of it and convert those:\n"
            + RECIPE.format(file=file)
        ) from error


def _refuse(settings: Mapping[str, Any], name: str) -> bool:
    """Whether it is gated."""
    architecture = word(settings, "architecture", "standard", name)
    if architecture not in ("standard", "gated"):
        raise ValueError(f"{name} is of architecture {architecture!r}; hf_msae reads standard and gated")
    kind = word(settings, "normalize_activations", "layer_norm", name)  # their default
    if kind in _PER_SAMPLE:
        said = f"has normalize_activations={kind!r}" if "normalize_activations" in settings else (
            f"does not tell normalize_activations, which is then {kind!r}"
        )  # fmt: skip
        raise ValueError(
            f"{name} {said}: that {_PER_SAMPLE[kind]}. No fixed input_mean and input_scale do that, so it cannot be "
            "converted"
        )
    if kind not in (None, "none"):
        raise ValueError(f"{name} has normalize_activations={kind!r}, which hf_msae does not know")
    if flag(settings, "is_transcoder", False, name) or flag(settings, "transcoder", False, name):
        raise ValueError(f"{name} is a transcoder: it predicts other embeddings than it encodes")
    if settings.get("d_out") not in (None, settings.get("d_in")):
        raise ValueError(
            f"{name} turns embeddings of {settings.get('d_in')} columns into ones of {settings['d_out']}: a "
            "transcoder, not an autoencoder"
        )
    return architecture == "gated"


def _sizes(settings: Mapping[str, Any], name: str) -> tuple[int, int]:
    d = whole_number(settings.get("d_in"), f"d_in in {_CONFIG} of {name}")
    if settings.get("d_sae") is not None:
        return d, whole_number(settings["d_sae"], f"d_sae in {_CONFIG} of {name}")
    return d, d * whole_number(settings.get("expansion_factor"), f"expansion_factor in {_CONFIG} of {name}")


def _activation(settings: Mapping[str, Any], gated: bool, overrides: Mapping[str, Any], name: str) -> dict[str, Any]:
    activation = word(settings, "activation_fn_str", "relu", name)
    arguments = settings_in(settings, "activation_fn_kwargs", name)
    if activation == "topk" and not gated:
        return {"activation": "topk", "k": k_of(arguments.get("k"), overrides, f"k of activation_fn_kwargs of {name}")}
    if activation != "relu":
        raise ValueError(
            f"{name} has the activation function {activation!r}{' and is gated' if gated else ''}; hf_msae reads "
            "relu, and topk of those that are not gated"
        )
    return {"activation": "jump_relu" if gated else "relu"}


def _origin(settings: Mapping[str, Any], overrides: Mapping[str, Any], notes: list[str], name: str) -> dict[str, Any]:
    model, kind, hook = (word(settings, key, None, name) for key in ("model_name", "layer_subtype", "hook_point"))
    layer = settings.get("hook_point_layer")
    config = {"base_model_name_or_path": model} if model else {}
    layer = layer[0] if isinstance(layer, list) and len(layer) == 1 else layer
    hook = hook or (f"blocks.{layer}.{kind}" if kind and layer is not None else None)
    if settings.get("hook_point_head_index") is not None:
        hook = f"{hook}, head {settings['hook_point_head_index']}"
    if flag(settings, "cls_token_only", False, name):
        notes.append("It was trained on CLS tokens alone: of the hook point's tokens, give it the first.")
    if flag(settings, "use_patches_only", False, name):
        notes.append("It was trained on patch tokens alone: give it all of the hook point's tokens but the first.")
    # ViT-Prisma hooks image encoders; where it hooks the text tower of a CLIP, hook_point says so.
    return config | place_of(hook_point_of(hook), hook and f"{hook} of {model}", overrides, name)
