"""Released models by name: our own, and other people's, which are converted from their formats."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ...model.modeling_msae import MSAEModel

_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True)
class ReleasedModel:
    """One released model.

    Attributes:
        name: Name that `from_released` takes.
        repo_id: Repository on the Hub; None if it comes with this package.
        subfolder: Folder or file in the repository.
        format: "hf_msae", or the format that it is converted from.
        base_model_name_or_path: Backbone, as `from_pretrained` takes it.
        hook_point: Hook point of the embeddings.
        d_in: Width of the embeddings.
        num_latents: Number of latents.
        activation: Activation, as in MSAEConfig.
        license: License that its authors give, if any.
        revision: Commit that is loaded; None for the newest.
        checked: Whether we have loaded and measured it. Other entries are taken from their authors' pages and code.
        notes: Anything else to know.
        input_scale: Scale for the converter, if the checkpoint needs one and does not hold it.
        sha256: SHA-256 of the file of weights, if we know it.
    """

    name: str
    repo_id: str | None
    subfolder: str | None
    format: str
    base_model_name_or_path: str | None
    hook_point: str
    d_in: int
    num_latents: int
    activation: str
    license: str | None = None
    revision: str | None = None
    checked: bool = False
    notes: str = ""
    input_scale: float | None = None
    sha256: str | None = None

    @property
    def place(self) -> tuple[str, str | None, str | None] | None:
        """Folder or Hub id, subfolder and revision for `from_pretrained`; None if the model has to be converted."""
        if self.format != "hf_msae":
            return None
        if self.repo_id is None:
            return str(_PACKAGE / self.name.partition("-")[0] / "msae" / self.name), None, None
        return self.repo_id, self.subfolder, self.revision

    def load(self, **kwargs: Any) -> MSAEModel:
        """Load the model, converted if needed; `kwargs` are those of `from_pretrained` or `convert_checkpoint`.

        Raises:
            OSError: It cannot be downloaded.
            ValueError: It is damaged, or not what this entry says.
        """
        from ...model.modeling_msae import MSAEModel
        from ..converters import convert_checkpoint

        if self.place is not None:
            location, subfolder, revision = self.place
            kwargs = {"subfolder": subfolder or "", "revision": revision, **kwargs}
            load = MSAEModel.from_pretrained
        else:
            names = ("subfolder", "revision", "format", "base_model_name_or_path", "hook_point", "input_scale")
            location = self.repo_id
            kwargs = {name: value for name in names if (value := getattr(self, name)) is not None} | kwargs
            load = convert_checkpoint
        self._verify(location, kwargs)
        model = load(location, **kwargs)
        for key in ("d_in", "num_latents", "activation"):
            if getattr(model.config, key) != getattr(self, key):
                raise ValueError(
                    f"{self.repo_id or self.name} holds a model of {key}={getattr(model.config, key)}, but "
                    f"{self.name} is listed with {getattr(self, key)}: {_CHANGED}"
                )
        return model

    def _verify(self, location: str, given: dict[str, Any]) -> None:
        """Compare the file of weights with the listed SHA-256, if there is one."""
        if self.sha256 is None:
            return
        from ..._utils.file_integrity import require_sha256
        from ..converters.source import CheckpointSource

        source = CheckpointSource.open(location, **{key: given.get(key) for key in ("subfolder", "revision", "token")})
        file = source.files[0] if len(source.files) == 1 else "model.safetensors"
        otherwise = f"{self.name} is listed with that: {_CHANGED}"
        require_sha256(source.path(file), self.sha256, source.full_name(file), otherwise)


_CHANGED = "it has changed since then; load it by the name of its repository if you want it all the same"


def _listed() -> Iterator[ReleasedModel]:
    for name, hook_point, d_in in (
        ("scenes-image", "image_embeds", 128),
        ("scenes-text", "text_embeds", 128),
        ("scenes-patches", "vision.layers.2", 128),
        ("clipart-image", "image_embeds", 192),
    ):
        yield ReleasedModel(
            name=name,
            repo_id=None,
            subfolder=None,
            format="hf_msae",
            base_model_name_or_path=f"hf_msae/{name.partition('-')[0]}-siglip",
            hook_point=hook_point,
            d_in=d_in,
            num_latents=1024,
            activation="relu",
            license="apache-2.0",
            checked=True,
            notes="comes with the package",
        )
    # Paths and commit are those of three public loaders of these weights.
    file = "6144_768_TopKReLU_64_RW_False_False_0.0_cc3m_ViT-L~14_train_image_2905936_768.pth"
    for folder, suffix in (("centered", ""), ("not_centered", "-not-centered")):
        yield ReleasedModel(
            name=f"msae-clip-vit-l14{suffix}",
            repo_id="WolodjaZ/MSAE",
            subfolder=f"ViT-L_14/{folder}/{file}",
            format="msae_authors",
            base_model_name_or_path="openai/clip-vit-large-patch14",
            hook_point="image_embeds",
            d_in=768,
            num_latents=6144,
            activation="relu",
            license="mit",
            revision="e6a85249444be9b25c7751e9677464dedfdc7307",
            notes=f"from the MSAE paper, trained on CC3M; {folder.replace('_', ' ')}",
        )
    for name, repo, base in (
        ("clip-vit-b16", "SAE_CLIP_24K_ViT-B-16_IN1K", "openai/clip-vit-base-patch16"),
        ("dinov2-vit-b14", "SAE_DINOv2_24K_ViT-B-14_IN1K", "facebook/dinov2-base"),
    ):
        yield ReleasedModel(
            name=f"saev-{name}",
            repo_id=f"osunlp/{repo}",
            subfolder="sae.pt",
            format="saev",
            base_model_name_or_path=base,
            hook_point="vision.layers.10",
            d_in=768,
            num_latents=24576,
            activation="relu",
            license="mit",
            notes="patch tokens of ImageNet-1k; applied to raw tokens, as in its authors' demo",
            # Written by saev 0.1, which normalizes in training by default; the authors' notebook applies these two to
            # tokens as the backbone returns them.
            input_scale=1.0,
        )
    for layer in (11, 17, 22, 23):
        for prefix, kind in (("", "batch_top_k_20_x8"), ("matryoshka-", "matroyshka_batch_top_k_20_x8")):
            run = f"imagenet_train_activations_clip-vit-large-patch14-336_{layer}_post_mlp_residual_{kind}"
            yield ReleasedModel(
                name=f"sae-for-vlm-{prefix}clip-vit-l14-336-layer-{layer}",
                repo_id="mateuszpach/sae-for-vlm",
                subfolder=f"{kind}/{run}/trainer_0/checkpoints/ae_100000.pt",
                format="dictionary_learning",
                base_model_name_or_path="openai/clip-vit-large-patch14-336",
                hook_point=f"vision.layers.{layer}",
                d_in=1024,
                num_latents=8192,
                activation="batch_topk",
                notes="patch tokens of ImageNet-1k; k = 20",
            )


_RELEASED = {model.name: model for model in _listed()}


def list_released() -> pd.DataFrame:
    """List the known released models, one per row: repository, backbone, hook point, sizes, format and more.

    `checked` marks those that we have loaded and measured; the others are listed as their authors describe them.
    `from_released` loads the commit in `revision`, or the newest one if there is none. It verifies the SHA-256 of the
    weights (the listed one, if any, and that of the upload) as well as width, number of latents and activation.

    Example:
        >>> hf_msae.list_released().query("hook_point == 'image_embeds'")[["repo_id", "base_model_name_or_path"]]
    """
    import pandas as pd

    return pd.DataFrame([asdict(model) for model in _RELEASED.values()]).set_index("name")


def get_released(name: str) -> ReleasedModel:
    """Get a released model by name; raise KeyError with similar names if there is no such model."""
    if name not in _RELEASED:
        raise KeyError(f"there is no released model {name!r}; {hint_at_released(name)}")
    return _RELEASED[name]


def hint_at_released(name: str) -> str:
    """Suggest released models for a mistyped name."""
    near = difflib.get_close_matches(name, _RELEASED, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else "hf_msae.list_released() lists the names"


def find_released(name: str | os.PathLike) -> ReleasedModel | None:
    """The released model of this name; None if the name is a folder or a Hub id."""
    return None if Path(name).expanduser().exists() else _RELEASED.get(str(name))
