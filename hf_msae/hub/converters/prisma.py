"""ViT-Prisma (github.com/soniajoseph/ViT-Prisma): `config.json` next to `weights.pt` or `n_images_NUMBER.pt`.

W_enc (d, n), b_enc (n,), W_dec (n, d), b_dec (d,); gated ones also have r_mag, b_mag and b_gate (n,), and do not use
b_enc. The code is activation((x - b_dec) @ W_enc + b_enc), the reconstruction code @ W_dec + b_dec. The weights are a
state dict, or {"cfg", "state_dict"} where cfg is a vit_prisma object, which cannot be read without running code;
`RECIPE` converts it to plain files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checkpoint import ForeignCheckpoint
from .places import origin
from .reading import (
    GATED_NOTE,
    OTHER_OUTPUT,
    PARAMETERS,
    PER_SAMPLE,
    Settings,
    check_keys,
    gated_as_jump_relu,
    state_dict,
    the_one,
)
from .source import CheckpointSource

RECIPE = """
    saved = torch.load("{file}", weights_only=False, map_location="cpu")  # runs the file's code: only if you trust it
    torch.save(saved["state_dict"], "plain/weights.pt")
    saved["cfg"].save_config("plain/config.json")  # not needed if there is a config.json
"""
"""To run where vit_prisma is installed, in a new folder `plain`."""

_CONFIG = "config.json"
_OWN_KEYS = ("hook_point_layer", "activation_fn_str", "normalize_activations", "cls_token_only")
_GATE = {"r_mag": "n", "b_mag": "n", "b_gate": "n"}
_TOKENS = {
    "cls_token_only": "It was trained on CLS tokens only: pass it only the first token of the hook point.",
    "use_patches_only": "It was trained on patch tokens only: pass it all tokens of the hook point but the first.",
}


def recognizes(source: CheckpointSource) -> bool:
    """Whether there is a ViT-Prisma config next to a `.pt`, or a single `.pt` that holds a vit_prisma object."""
    files = source.matching("*.pt")
    if files and source.has(_CONFIG):
        settings = source.settings(_CONFIG)
        if "d_in" in settings and any(key in settings for key in _OWN_KEYS):
            return True
    return len(files) == 1 and source.asks_for(files[0], "vit_prisma")


def read(source: CheckpointSource) -> ForeignCheckpoint:
    """Read a ViT-Prisma folder; raises as `read_checkpoint`."""
    files = source.matching("*.pt")
    file = "weights.pt" if "weights.pt" in files else the_one(files, source.name, ".pt file")
    name = source.full_name(file)
    content = source.read_data(file, "vit_prisma", RECIPE.format(file=file))
    if isinstance(content, Mapping) and "state_dict" in content:
        check_keys(content, (), ("state_dict", "cfg"), name)
        content = content["state_dict"]
    settings = source.settings(_CONFIG)
    settings.refuse({"is_transcoder": OTHER_OUTPUT, "transcoder": OTHER_OUTPUT})
    settings.refuse_transcoder()
    settings.choice("normalize_activations", ("none", None), "layer_norm", PER_SAMPLE)  # with their default
    gated = settings.choice("architecture", ("standard", "gated"), "standard") == "gated"
    config = _activation(settings, gated)
    sizes = settings.sizes("d_in", "d_sae", "expansion_factor")
    tensors, _ = state_dict(content, name, {**PARAMETERS, **_GATE} if gated else PARAMETERS, **sizes)
    parts = {"encoder": tensors["W_enc"], "latent_bias": tensors["b_enc"]}
    if gated:
        parts = gated_as_jump_relu(tensors["W_enc"], tensors["b_gate"], tensors["b_mag"], tensors["r_mag"])
        source.notes.append(GATED_NOTE)
    source.notes.extend(note for key, note in _TOKENS.items() if settings.flag(key))
    config |= _origin(source, settings)
    return ForeignCheckpoint(**parts, decoder=tensors["W_dec"], bias=tensors["b_dec"], config=config)


def _activation(settings: Settings, gated: bool) -> dict[str, Any]:
    if gated:
        settings.choice("activation_fn_str", ("relu",), "relu")
        return {"activation": "jump_relu"}
    if settings.choice("activation_fn_str", ("relu", "topk"), "relu") == "relu":
        return {"activation": "relu"}
    return {"activation": "topk", "k": settings.inner("activation_fn_kwargs").k("k")}


def _origin(source: CheckpointSource, settings: Settings) -> dict[str, str]:
    model, kind, hook = (settings.word(key) for key in ("model_name", "layer_subtype", "hook_point"))
    layer = settings.get("hook_point_layer")
    layer = layer[0] if isinstance(layer, list) and len(layer) == 1 else layer
    hook = hook or (f"blocks.{layer}.{kind}" if kind and layer is not None else None)
    if settings.get("hook_point_head_index") is not None:
        hook = f"{hook}, head {settings['hook_point_head_index']}"
    # ViT-Prisma hooks image encoders; if it hooks the text tower of a CLIP, the hook point's name says so.
    return origin(source, settings.name, [hook], model, tower="vision", place=hook and f"{hook} of {model}")
