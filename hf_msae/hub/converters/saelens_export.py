"""Export of an MSAE in SAELens' format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ... import __version__
from ..._utils.atomic import atomic_path, make_folder
from ..._utils.json_files import write_json
from ...model.modeling_msae import MSAEModel

_FORMAT_VERSION = "6.0.0"
"""The first version of SAELens with this layout of cfg.json; one without a version counts as older."""


def export_saelens(model: MSAEModel, folder: str | os.PathLike, k: int | None = None) -> Path:
    """Write `cfg.json` and `sae_weights.safetensors`, as sae-lens 6 reads them (SAE.load_from_disk).

    Codes equal ours, latent by latent, and reconstructions are raw: the normalization is folded into the weights,

        W_enc = encoder * input_scale    W_dec = decoder / input_scale    b_dec = pre_bias / input_scale + input_mean

    with apply_b_dec_to_input, so that b_enc is latent_bias. (CLIP's mean is much larger than the spread around it:
    passed through W_enc, it would make a code a small difference of large numbers.) The architecture is "standard" for
    the full ReLU code, "topk" for its k largest activations, and "jumprelu" for "jump_relu" and "batch_topk".

    SAELens has no levels: one k is exported, and the metadata in cfg.json record the levels of the training.

    Args:
        model: Any MSAE without a soft cap.
        folder: Folder to write, created if needed; the two files in it are replaced.
        k: Number of activations that codes keep. Defaults to as many as with `model.encode`.

    Returns:
        The folder.

    Raises:
        ValueError: SAELens cannot express a soft cap, or thresholds together with a k; or k is out of range.
    """
    config = model.config
    if config.soft_cap is not None:
        raise ValueError(
            f"soft_cap={config.soft_cap} squeezes the code by a tanh, which SAELens has no setting for: this model "
            "cannot be exported"
        )
    kept = model._resolve_k(k)
    kept = min(kept, config.k) if config.activation == "topk" else kept
    architecture: dict[str, Any] = {"architecture": "standard"}
    if kept < config.num_latents:
        architecture = {"architecture": "topk", "k": kept, "rescale_acts_by_decoder_norm": False}
    if config.activation in ("jump_relu", "batch_topk"):
        if kept < config.num_latents:
            raise ValueError(
                f"k={kept} takes the largest of what exceeds the thresholds of {config.activation}; SAELens has "
                f"thresholds or a k, not both: export all with k={config.num_latents}"
            )
        architecture = {"architecture": "jumprelu"}
    tensors = _tensors(model)
    folder = Path(folder).expanduser()
    make_folder(folder)
    with atomic_path(folder / "sae_weights.safetensors") as unfinished:
        save_file(tensors, unfinished)
    settings = {
        **architecture,
        "d_in": config.d_in,
        "d_sae": config.num_latents,
        "dtype": str(tensors["W_enc"].dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": _metadata(model),
    }
    write_json(folder / "cfg.json", settings)
    return folder


@torch.no_grad()
def _tensors(model: MSAEModel) -> dict[str, torch.Tensor]:
    """Tensors by SAELens' names, computed in float64 and stored in float32 or wider."""
    dtype = torch.promote_types(torch.float32, model.encoder.dtype)
    scale, mean = model.input_scale.double(), model.input_mean.double()
    tensors = {
        "W_enc": model.encoder.double() * scale,
        "W_dec": model.dictionary.double() / scale,
        "b_enc": model.latent_bias.double(),
        "b_dec": model.pre_bias.double() / scale + mean,
    }
    if model.config.activation == "jump_relu":
        tensors["threshold"] = model.log_threshold.exp().double()
    elif model.config.activation == "batch_topk":
        # Our threshold has to be reached, theirs exceeded.
        reached = model.activation_threshold.to(dtype)
        exceeded = torch.nextafter(reached, torch.full_like(reached, -torch.inf))
        tensors["threshold"] = exceeded.double().expand(model.config.num_latents)
    return {name: tensor.to(device="cpu", dtype=dtype).contiguous().clone() for name, tensor in tensors.items()}


def _metadata(model: MSAEModel) -> dict[str, Any]:
    """Where the embeddings come from, by our names: SAELens' are those of language models' hook points."""
    config = model.config
    levels = {"topk": "nesting_ks", "prefix": "nesting_widths"}.get(config.nesting)
    training = {name: getattr(config, name) for name in ("activation", "nesting", levels, "nesting_weights") if name}
    return {
        "sae_lens_version": _FORMAT_VERSION,
        "sae_lens_training_version": None,
        "model_name": config.base_model_name_or_path,
        "model_class_name": "transformers.AutoModel",
        "hook_name": config.hook_point,
        "base_model_revision": config.base_model_revision,
        "exported_by": f"hf_msae {__version__}",
        "trained_with": training,
    }
