"""Released models by name: our own, and those of others in formats that are converted on the way."""

from __future__ import annotations

import difflib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ...model.modeling_msae import MSAEModel

_SCENES = Path(__file__).parents[2] / "scenes" / "msae"


@dataclass(frozen=True)
class ReleasedModel:
    """One released model.

    Attributes:
        name: what `from_released` takes.
        repo_id: where it lies on the Hub; None for those that come inside this package.
        subfolder: the folder, or the file, in it.
        format: "hf_msae", or the format that it is converted from.
        base_model_name_or_path: its backbone, as from_pretrained takes it.
        hook_point: where the embeddings come from.
        d_in, num_latents: sizes.
        activation: as in MSAEConfig.
        license: as its authors say; None where they don't.
        revision: the commit that is loaded; None for the newest.
        checked: whether it was loaded and measured by us. The repositories of others were not reachable when this
            list was written: their entries are from their authors' pages and code.
        notes: what else to know.
        input_scale: what the converter is told, where the checkpoint needs such a number and does not hold it.
        sha256: of its file of weights, 64 hexadecimal digits; None where we do not know it.
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
        """(folder or Hub id, subfolder, revision) as from_pretrained takes them; None where it has to be converted."""
        if self.format != "hf_msae":
            return None
        return (str(_SCENES / self.name), None, None) if self.repo_id is None else (
            self.repo_id, self.subfolder, self.revision
        )  # fmt: skip

    def load(self, **kwargs: Any) -> MSAEModel:
        """The model; downloaded and converted where needed, and compared with this entry.

        Args:
            kwargs: for `MSAEModel.from_pretrained`, or `convert_checkpoint`.

        Raises:
            OSError: it cannot be downloaded.
            ValueError: what is there is not what this entry says, or is damaged.
        """
        from ...model.modeling_msae import MSAEModel
        from ..converters import convert_checkpoint

        if self.place is not None:
            location, subfolder, revision = self.place
            kwargs = {"subfolder": subfolder or "", "revision": revision, **kwargs}
            self._verify(location, kwargs)
            model = MSAEModel.from_pretrained(location, **kwargs)
        else:
            told = {name: getattr(self, name) for name in ("base_model_name_or_path", "hook_point", "input_scale")}
            told = {key: value for key, value in told.items() if value is not None}
            given = {"subfolder": self.subfolder, "revision": self.revision, "format": self.format, **told, **kwargs}
            self._verify(self.repo_id, given)
            model = convert_checkpoint(self.repo_id, **given)
        for key in ("d_in", "num_latents", "activation"):
            if getattr(model.config, key) != getattr(self, key):
                raise ValueError(
                    f"{self.repo_id or self.name} holds a model of {key}={getattr(model.config, key)}, but "
                    f"{self.name} is listed with {getattr(self, key)}: it has changed since; load it by its "
                    "repository's name if it is what you want"
                )
        return model

    def _verify(self, location: str, given: dict[str, Any]) -> None:
        """Compare the file of weights with the SHA-256 that is listed, if one is."""
        if self.sha256 is None:
            return
        from ..._utils.file_integrity import require_sha256
        from ..converters.source import CheckpointSource

        asked = {key: given.get(key) for key in ("subfolder", "revision", "token")}
        source = CheckpointSource.open(location, **asked)
        file = source.files[0] if len(source.files) == 1 else "model.safetensors"
        otherwise = (
            f"{self.name} is listed with that: it has changed since; load it by its repository's name if it is what "
            "you want"
        )
        require_sha256(source.path(file), self.sha256, source.full_name(file), otherwise)


def _scenes() -> list[ReleasedModel]:
    hook_points = {"scenes-image": "image_embeds", "scenes-text": "text_embeds", "scenes-patches": "vision.layers.2"}
    return [
        ReleasedModel(
            *(name, None, None, "hf_msae", "hf_msae/scenes-siglip", hook_point, 128, 1024, "relu", "apache-2.0"),
            checked=True,
            notes="comes inside the package",
        )
        for name, hook_point in hook_points.items()
    ]


def _msae_authors() -> list[ReleasedModel]:
    # Paths and commit as three public loaders of these weights have them.
    file = "6144_768_TopKReLU_64_RW_False_False_0.0_cc3m_ViT-L~14_train_image_2905936_768.pth"
    return [
        ReleasedModel(
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
            notes=f"the MSAE paper's, CC3M; {folder.replace('_', ' ')}",
        )
        for folder, suffix in (("centered", ""), ("not_centered", "-not-centered"))
    ]


def _saev() -> list[ReleasedModel]:
    trained = {
        "clip-vit-b16": ("SAE_CLIP_24K_ViT-B-16_IN1K", "openai/clip-vit-base-patch16"),
        "dinov2-vit-b14": ("SAE_DINOv2_24K_ViT-B-14_IN1K", "facebook/dinov2-base"),
    }
    return [
        ReleasedModel(
            *(f"saev-{name}", f"osunlp/{repo}", "sae.pt", "saev", base, "vision.layers.10", 768, 24576, "relu", "mit"),
            notes="patch tokens of ImageNet-1k; applied to raw tokens, as its authors' demo does",
            # Written by saev 0.1, whose training normalises by default; the authors' notebook applies these two to
            # tokens as the backbone gives them.
            input_scale=1.0,
        )
        for name, (repo, base) in trained.items()
    ]


def _sae_for_vlm() -> list[ReleasedModel]:
    found = []
    for layer in (11, 17, 22, 23):
        for prefix, kind in (("", "batch_top_k_20_x8"), ("matryoshka-", "matroyshka_batch_top_k_20_x8")):
            run = f"imagenet_train_activations_clip-vit-large-patch14-336_{layer}_post_mlp_residual_{kind}"
            found.append(
                ReleasedModel(
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
            )
    return found


_RELEASED = {model.name: model for model in (*_scenes(), *_msae_authors(), *_saev(), *_sae_for_vlm())}


def list_released() -> pd.DataFrame:
    """Known released models, one a row, by name: repository, backbone, hook point, sizes, format and more.

    `checked` tells those that we have loaded and measured; the others are listed as their authors describe them.
    What `from_released` verifies: that a large file from the Hub has the SHA-256 that it was uploaded with, and the
    one in `sha256` where we know it; and that width, number of latents and activation are those of the list. Where
    there is a `revision`, it is that commit that is loaded; without one, whatever its authors have put there last.

    Example:
        >>> hf_msae.list_released().query("hook_point == 'image_embeds'")[["repo_id", "base_model_name_or_path"]]
    """
    import pandas as pd

    return pd.DataFrame([asdict(model) for model in _RELEASED.values()]).set_index("name")


def get_released(name: str) -> ReleasedModel:
    """The released model of this name.

    Raises:
        KeyError: there is none; says which are like it.
    """
    if name not in _RELEASED:
        raise KeyError(f"there is no released model {name!r}; {hint_at_released(name)}")
    return _RELEASED[name]


def hint_at_released(name: str) -> str:
    """Which released models a mistyped name may have meant."""
    near = difflib.get_close_matches(name, _RELEASED, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else "hf_msae.list_released() has the names"


def find_released(name: str | os.PathLike) -> ReleasedModel | None:
    """The released model that is meant where a folder or Hub id may stand as well; None where it is one of these."""
    return None if Path(name).expanduser().exists() else _RELEASED.get(str(name))
