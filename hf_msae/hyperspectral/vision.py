"""Torch and transformers vision models as regressors of patches, and the layout of KPLabs' HYPERVIEW transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from torch import nn

from .._utils.evaluating import evaluation_mode
from .checks import PatchError, check_pair
from .patches import HYPERVIEW_WAVELENGTHS, TARGETS, Pair, Patches, TakesPatches

if TYPE_CHECKING:
    from typing import Self

    from transformers import CLIPVisionConfig

LARGEST_VALUE = 5419
"""What the HYPERVIEW transformer's inputs are divided by: the largest value of the challenge's training data."""


class VisionRegressor(TakesPatches, RegressorMixin, BaseEstimator):
    """Predict from patches with a trained torch module or transformers model.

    A patch is 0 outside the field, padded with zeros to a square below and to the right, divided by `divisor`, and
    resized bilinearly. `HyperviewTransformer` takes such inputs.

    Args:
        model: A module that takes (n, bands, size, size) and returns (n, t), or an output with `logits` of that shape.
            Its weights and its mode (training or evaluation) are left as they are.
        image_size: Height and width of its input in pixels.
        divisor: What digital numbers are divided by.
        target_scale: What outputs are multiplied by, one number per target; None for 1. For models trained on the
            challenge's scaled targets: `HYPERVIEW_SCALE`.
        batch_size: Patches computed at once.

    Example:
        >>> from hf_msae.hyperspectral import HYPERVIEW_SCALE, HyperviewTransformer, VisionRegressor, make_patches
        >>> model = HyperviewTransformer(image_size=32, patch_size=16, width=64, num_layers=2)
        >>> regressor = VisionRegressor(model, image_size=32, target_scale=HYPERVIEW_SCALE)
        >>> train, test = make_patches(20)[:15], make_patches(20)[15:]
        >>> targets = torch.tensor(train.targets.to_numpy() / HYPERVIEW_SCALE, dtype=torch.float32)
        >>> loss = nn.functional.mse_loss(model(regressor.images(train)), targets)  # in a loop of your own
        >>> regressor.predict(test).shape
        (5, 4)
    """

    keeps_what_it_learned = True
    """`fit` changes nothing."""

    def __init__(
        self,
        model: nn.Module,
        *,
        image_size: int = 224,
        divisor: float = LARGEST_VALUE,
        target_scale: Sequence[float] | None = None,
        batch_size: int = 8,
    ):
        self.model = model
        self.image_size = image_size
        self.divisor = divisor
        self.target_scale = target_scale
        self.batch_size = batch_size

    def fit(self, X: Patches | Sequence[Pair], y: object = None) -> Self:
        """Do nothing: the model is trained already."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Patches | Sequence[Pair]) -> np.ndarray:
        """Return predictions (n, t), float64.

        Raises:
            PatchError: A patch has no field, or values that are not finite.
            ValueError: The model returns something else, or `target_scale` has another length.
        """
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        found = []
        with evaluation_mode(self.model), torch.inference_mode():
            for start in range(0, len(X), self.batch_size):
                rows = range(start, min(start + self.batch_size, len(X)))
                output = self.model(self.images(X, rows).to(device))
                output = getattr(output, "logits", output)
                if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != len(rows):
                    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
                    raise ValueError(f"the model returned {shape} for {len(rows)} patches, but (n, targets) is needed")
                found.append(output.double().cpu().numpy())
        predictions = np.concatenate(found)
        if self.target_scale is None:
            return predictions
        scale = np.asarray(self.target_scale, dtype=float)
        if scale.shape != predictions.shape[1:]:
            raise ValueError(f"target_scale has {scale.size} numbers, but the model predicts {predictions.shape[1]}")
        return predictions * scale

    def images(self, X: Patches | Sequence[Pair], rows: Sequence[int] | None = None) -> torch.Tensor:
        """Return what the model is given (rows, bands, size, size), to train it on: all patches, or some rows."""
        return torch.stack([self._image(X, row) for row in (range(len(X)) if rows is None else rows)])

    def _image(self, X: Patches | Sequence[Pair], row: int) -> torch.Tensor:
        name = f"patch {X.ids[row] if isinstance(X, Patches) else row}"
        data, mask = check_pair(*X[row], name)
        image = np.where(mask, 0, data).astype(np.float32) / self.divisor
        if not np.isfinite(image).all():
            raise PatchError(name, "data", "values of the field are not finite")
        edge = max(mask.shape)
        square = np.zeros((len(image), edge, edge), dtype=np.float32)
        square[:, : mask.shape[0], : mask.shape[1]] = image
        size = (self.image_size, self.image_size)
        return nn.functional.interpolate(
            torch.from_numpy(square)[None], size, mode="bilinear", align_corners=False, antialias=True
        )[0]


HYPERVIEW_SCALE = tuple(high for _, high in TARGETS.values())
"""Largest values of the challenge's targets, by which its models divide them."""


class HyperviewTransformer(nn.Module):
    """The layout of KPLabs/HYPERVIEW-VisionTransformer: a CLIP vision tower between two small heads.

    150 bands are reduced to three by two 1x1 convolutions with hardswish, a CLIP ViT-L/14 makes an embedding, it is
    normalized, and three linear layers with hardswish and a hard sigmoid make four targets between 0 and 1. Weights
    are random; `load_checkpoint` takes those of the published file, which has OpenAI's names.

    Args:
        bands: Bands of the input.
        targets: Number of targets.
        image_size: Height and width of the input in pixels.
        patch_size: Of the transformer.
        width: Of the transformer; heads have 64 dimensions.
        num_layers: Of the transformer.
        embedding_size: Of the embedding.
    """

    def __init__(
        self,
        bands: int = len(HYPERVIEW_WAVELENGTHS),
        targets: int = len(TARGETS),
        image_size: int = 224,
        patch_size: int = 14,
        width: int = 1024,
        num_layers: int = 24,
        embedding_size: int = 768,
    ):
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        super().__init__()
        config: CLIPVisionConfig = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=embedding_size,
            num_hidden_layers=num_layers,
            num_attention_heads=max(1, width // 64),
            image_size=image_size,
            patch_size=patch_size,
            hidden_act="quick_gelu",
        )
        self.dimension_reduction = nn.Sequential(
            nn.Conv2d(bands, 64, 1), nn.Hardswish(), nn.Conv2d(64, 3, 1), nn.Hardswish()
        )
        self.visual = CLIPVisionModelWithProjection(config)
        self.head = nn.Sequential(
            nn.Linear(embedding_size, embedding_size),
            nn.Hardswish(),
            nn.Linear(embedding_size, embedding_size // 2),
            nn.Hardswish(),
            nn.Linear(embedding_size // 2, targets),
            nn.Hardsigmoid(),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return targets between 0 and 1 (n, targets) for images (n, bands, h, w)."""
        embeddings = self.visual(self.dimension_reduction(images)).image_embeds
        return self.head(nn.functional.normalize(embeddings, dim=1))

    def load_checkpoint(self, state: dict[str, torch.Tensor]) -> Self:
        """Load weights with the names of the published checkpoint; those of its text tower are ignored.

        Args:
            state: What `torch.load("VisionTransformer.pt", weights_only=True)` returns.

        Raises:
            ValueError: Weights are missing or have other shapes.
        """
        converted = {}
        for name, tensor in state.items():
            converted |= _converted(name, tensor)
        own = self.state_dict()
        missing = [name for name in own if name not in converted and not name.endswith("position_ids")]
        if missing:
            raise ValueError(f"the checkpoint lacks {len(missing)} weights, such as {missing[0]}")
        for name, tensor in converted.items():
            if name not in own or own[name].shape != tensor.shape:
                expected = tuple(own[name].shape) if name in own else "no such weight"
                raise ValueError(f"{name} of the checkpoint has {tuple(tensor.shape)}, but the model has {expected}")
        self.load_state_dict(converted, strict=False)
        return self


_HEADS = {
    "external_dim_reduction.dim1": "dimension_reduction.0",
    "external_dim_reduction.dim2": "dimension_reduction.2",
    "external_image_mlp_header.hidden1": "head.0",
    "external_image_mlp_header.hidden2": "head.2",
    "external_image_mlp_header.hidden3": "head.4",
}
_LAYER = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TOWER = {
    "visual.conv1.weight": "visual.vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "visual.vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "visual.vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "visual.vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "visual.vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "visual.vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "visual.vision_model.post_layernorm.bias",
}


def _converted(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a weight of the published checkpoint with our names: none, one, or three of attention."""
    if name in _TOWER:
        return {_TOWER[name]: tensor}
    if name == "visual.proj":
        return {"visual.visual_projection.weight": tensor.T}
    module, _, kind = name.rpartition(".")
    if module in _HEADS:
        return {f"{_HEADS[module]}.{kind}": tensor}
    if not name.startswith("visual.transformer.resblocks."):
        return {}
    layer, _, part = name.removeprefix("visual.transformer.resblocks.").partition(".")
    prefix = f"visual.vision_model.encoder.layers.{layer}"
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = part.rpartition("_")[2]
        return {
            f"{prefix}.self_attn.{which}_proj.{kind}": third
            for which, third in zip(("q", "k", "v"), tensor.chunk(3), strict=True)
        }
    module, _, kind = part.rpartition(".")
    return {f"{prefix}.{_LAYER[module]}.{kind}": tensor}
