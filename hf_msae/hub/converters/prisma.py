"""ViT-Prisma (github.com/soniajoseph/ViT-Prisma): `config.json` beside `weights.pt` or `n_images_NUMBER.pt`.

W_enc (d, n), b_enc (n,), W_dec (n, d), b_dec (d,); gated ones also have r_mag, b_mag and b_gate (n,), and do not use
b_enc. The code is activation((x - b_dec) @ W_enc + b_enc), the reconstruction code @ W_dec + b_dec. The weights are a
state dict, or {"cfg", "state_dict"} where cfg is an object of vit_prisma's: that is code and is not read; `RECIPE`
converts it to plain files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checkpoint import ForeignCheckpoint
from .places import hook_point_of, place_of
from .reading import GATED_NOTE, Settings, gated_as_jump_relu, refuse_other_keys, state_dict, the_one
from .source import CheckpointSource

RECIPE = """
    saved = torch.load("{file}", weights_only=False, map_location="cpu")  # runs the file's code: only if you trust it
    torch.save(saved["state_dict"], "plain/weights.pt")
    saved["cfg"].save_config("plain/config.json")  # not needed if there is a config.json
"""
"""To run where vit_prisma is installed, in a new folder `plain`."""

_CONFIG = "config.json"
_OWN_KEYS = ("hook_point_layer", "activation_fn_str", "normalize_activations", "cls_token_only")
_TENSORS = {"W_enc": "d n", "b_enc": "n", "W_dec": "n d", "b_dec": "d"}
_GATE = {"r_mag": "n", "b_mag": "n", "b_gate": "n"}
_PER_SAMPLE = {
    "layer_norm": "brings each embedding to mean 0 and variance 1 by itself, and back",
    "constant_norm_rescale": "scales each embedding to one length by itself, and back",
}
_TRANSCODER = "a transcoder predicts other embeddings than it encodes"


def recognizes(source: CheckpointSource) -> bool:
    """Whether there is a config of ViT-Prisma's beside a `.pt`, or a single `.pt` that holds an object of it."""
    files = source.matching("*.pt")
    if not files:
        return False
    if source.has(_CONFIG):
        settings = source.settings(_CONFIG)
        if "d_in" in settings and any(key in settings for key in _OWN_KEYS):
            return True
    return len(files) == 1 and source.asks_for(files[0], "vit_prisma")


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read weights and config of ViT-Prisma's; see `read_checkpoint` for what is raised."""
    files = source.matching("*.pt")
    file = "weights.pt" if "weights.pt" in files else the_one(files, source.name, ".pt file")
    name = source.full_name(file)
    if source.asks_for(file, "vit_prisma"):
        raise ValueError(
            f"{name} holds an object of vit_prisma besides its tensors: reading it runs code, which hf_msae never "
            "does. Where vit_prisma is installed, make plain files of it and convert those:\n"
            + RECIPE.format(file=file)
        )
    content = source.read(file)
    if isinstance(content, Mapping) and "state_dict" in content:
        refuse_other_keys(content, ("state_dict", "cfg"), name)
        content = content["state_dict"]
    if not source.has(_CONFIG):
        raise FileNotFoundError(f"{source.name} holds no {_CONFIG}, which says what {file} computes")
    settings = source.settings(_CONFIG)
    gated = _is_gated(settings)
    sizes = settings.sizes("d_in", "d_sae", "expansion_factor")
    tensors, _ = state_dict(content, name, {**_TENSORS, **_GATE} if gated else _TENSORS, **sizes)
    parts, notes = {"encoder": tensors["W_enc"], "latent_bias": tensors["b_enc"]}, []
    if gated:
        parts = gated_as_jump_relu(tensors["W_enc"], tensors["b_gate"], tensors["b_mag"], tensors["r_mag"])
        notes.append(GATED_NOTE)
    return ForeignCheckpoint(
        format="prisma",
        **parts,
        decoder=tensors["W_dec"],
        input_bias=tensors["b_dec"],
        output_bias=tensors["b_dec"],
        config={**_activation(settings, gated, overrides), **_origin(settings, overrides, notes)},
        notes=notes,
    )


def _is_gated(settings: Settings) -> bool:
    """Whether it is gated, after checking that an MSAE can compute it."""
    architecture = settings.word("architecture", "standard")
    if architecture not in ("standard", "gated"):
        raise ValueError(f"{settings.name} is of architecture {architecture!r}; hf_msae reads standard and gated")
    kind = settings.word("normalize_activations", "layer_norm")  # their default
    if kind in _PER_SAMPLE:
        default = "" if "normalize_activations" in settings else ", by default"
        raise ValueError(
            f"{settings.name} has normalize_activations={kind!r}{default}: that {_PER_SAMPLE[kind]}. No fixed "
            "input_mean and input_scale do that, so it cannot be converted"
        )
    if kind not in (None, "none"):
        raise ValueError(f"{settings.name} has normalize_activations={kind!r}, which hf_msae does not know")
    settings.refuse({"is_transcoder": _TRANSCODER, "transcoder": _TRANSCODER})
    settings.refuse_transcoder()
    return architecture == "gated"


def _activation(settings: Settings, gated: bool, overrides: Mapping[str, Any]) -> dict[str, Any]:
    activation, arguments = settings.word("activation_fn_str", "relu"), settings.inner("activation_fn_kwargs")
    if activation == "topk" and not gated:
        return {"activation": "topk", "k": arguments.k("k", overrides)}
    if activation != "relu":
        raise ValueError(
            f"{settings.name} has the activation function {activation!r}{' and is gated' if gated else ''}; hf_msae "
            "reads relu, and topk of those that are not gated"
        )
    return {"activation": "jump_relu" if gated else "relu"}


def _origin(settings: Settings, overrides: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    model, kind, hook = (settings.word(key) for key in ("model_name", "layer_subtype", "hook_point"))
    layer = settings.get("hook_point_layer")
    layer = layer[0] if isinstance(layer, list) and len(layer) == 1 else layer
    hook = hook or (f"blocks.{layer}.{kind}" if kind and layer is not None else None)
    if settings.get("hook_point_head_index") is not None:
        hook = f"{hook}, head {settings['hook_point_head_index']}"
    if settings.flag("cls_token_only"):
        notes.append("It was trained on CLS tokens alone: give it only the first of the hook point's tokens.")
    if settings.flag("use_patches_only"):
        notes.append("It was trained on patch tokens alone: give it all of the hook point's tokens but the first.")
    # ViT-Prisma hooks image encoders; if it hooks the text tower of a CLIP, hook_point says so.
    place = place_of(hook_point_of(hook), hook and f"{hook} of {model}", overrides, settings.name)
    return {"base_model_name_or_path": model, **place} if model else place
