"""Stands in for the loading of hf_msae: as in transformers, but completely or not at all."""

import torch
from transformers.modeling_utils import PreTrainedModel


class PreTrainedMSAE(PreTrainedModel):
    """A `PreTrainedModel` that refuses incomplete or damaged weights."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """Load as transformers does, but raise an error where it would fill in random weights."""
        asked = kwargs.pop("output_loading_info", False)
        if asked or kwargs.get("state_dict") is not None or kwargs.get("ignore_mismatched_sizes"):
            return super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=asked, **kwargs
            )
        kwargs["ignore_mismatched_sizes"] = True  # so that the shapes come back
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        wrong = {kind: sorted(map(str, info[f"{kind}_keys"])) for kind in ("missing", "unexpected", "mismatched")}
        loaded = {name: tensor for name, tensor in model.state_dict().items() if not tensor.is_meta}
        wrong["not finite"] = [name for name, tensor in loaded.items() if not torch.isfinite(tensor).all()]
        if "input_scale" in loaded and not loaded["input_scale"] > 0:
            wrong["not above 0"] = ["input_scale"]
        if any(wrong.values()):
            found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in wrong.items() if names)
            raise ValueError(f"{pretrained_model_name_or_path}: weights and config.json do not fit ({found})")
        return model
