"""Sentences of a model card: on the config, the data, the origin of a model and its use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..._utils.redaction import public_model_name
from ...metrics.measured_data import is_hub_id

if TYPE_CHECKING:
    from ...model.configuration_msae import MSAEConfig
    from ...training.record import TrainingRecord
    from .card_tables import ConceptSection

_ACTIVATIONS = {"relu": "ReLU", "topk": "TopK", "batch_topk": "BatchTopK", "jump_relu": "JumpReLU"}
MSAE_CITATION = """\
@inproceedings{zaigrajew2025interpreting,
  title     = {Interpreting {CLIP} with Hierarchical Sparse Autoencoders},
  author    = {Zaigrajew, Vladimir and Baniecki, Hubert and Biecek, Przemyslaw},
  booktitle = {Proceedings of the 42nd International Conference on Machine Learning},
  series    = {PMLR},
  volume    = {267},
  pages     = {73918--73956},
  year      = {2025}
}"""
_OTHER_CITATIONS = {
    "prefix": (
        "matryoshka-prefixes",
        "2503.17547",
        "Learning Multi-Level Features with Matryoshka Sparse Autoencoders",
    ),
    "topk": ("topk", "2406.04093", "Scaling and evaluating sparse autoencoders"),
    "batch_topk": ("batchtopk", "2412.06410", "{BatchTopK} Sparse Autoencoders"),
    "jump_relu": (
        *("jumprelu", "2407.14435"),
        "Jumping Ahead: Improving Reconstruction Fidelity with {JumpReLU} Sparse Autoencoders",
    ),
}
_SOFTWARE = """\
@software{hf_msae,
  title   = {hf_msae: Matryoshka sparse autoencoders for {CLIP} and {SigLIP}},
  author  = {{The hf_msae team}}VERSION
}"""


def figure(value: Any) -> str:
    """A number as tables show it; empty for None and NaN."""
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else escaped(value)


def rounded(value: Any) -> Any:
    """The number that `figure` shows."""
    return float(figure(value)) if isinstance(value, float) else value


def escaped(value: Any) -> str:
    """A value as plain text in Markdown, on one line, also in a cell of a table."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)
    text = " ".join(text.split()).replace("<", "&lt;")
    return re.sub(r"([\\|`*\[\]])", r"\\\1", text)


def code(value: Any) -> str:
    """A value as a code span in Markdown, whatever backticks it contains."""
    text = " ".join(str(value).split())
    fence = "`" * (1 + _longest_run(text))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def fenced(text: str, language: str) -> str:
    """A code block in Markdown, whatever backticks it contains."""
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    """Length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


def kind(config: MSAEConfig) -> str:
    """The sort of autoencoder, in a few words."""
    activation = _ACTIVATIONS[config.activation]
    if config.nesting == "none":
        return f"{activation} sparse autoencoder"
    return "Matryoshka sparse autoencoder" + ("" if activation == "ReLU" else f" ({activation})")


def nesting(config: MSAEConfig) -> str:
    """How its levels nest, in which of the field's two senses, and how many latents are active."""
    ks, widths = config.nesting_ks, config.nesting_widths
    if config.nesting == "topk":
        text = (
            "One code holds every granularity (nested top-k): its k largest latents explain the embedding by "
            f"themselves; it was trained for this at k = {', '.join(map(str, ks))}. Every level may use all latents."
        )
    elif config.nesting == "prefix":
        trained = f"at widths drawn anew in each step, {config.random_prefixes} at a time"
        if not config.random_prefixes:
            trained = f"for N = {', '.join(map(str, widths))}"
        text = (
            "Its dictionary nests (Matryoshka in the sense of arXiv 2503.17547): the first N latents are a coarser "
            f"dictionary by themselves, {trained}."
        )
    else:
        text = "It has one level, the full code; nothing nests."
    of_activation = {
        "relu": "",
        "topk": f" At most {config.k} latents are active for an embedding.",
        "batch_topk": f" On average {config.k} latents are active for an embedding; the number varies.",
        "jump_relu": " Each latent is active above a learned threshold of its own.",
    }
    return text + of_activation[config.activation]


def embeddings(config: MSAEConfig) -> str:
    """The kind of embeddings it was trained on, with the hook point."""
    kind_of = {"image_embeds": "image embeddings", "text_embeds": "text embeddings"}
    return f"{kind_of.get(config.hook_point, 'tokens')} ({code(config.hook_point)})"


def is_of_scenes(config: MSAEConfig) -> bool:
    """Whether its backbone is the small SigLIP of scenes that comes with the package."""
    from ...scenes.backbone import BACKBONE_NAME

    return config.base_model_name_or_path == BACKBONE_NAME


def is_on_hub(name: str | None, is_local: bool | None = None) -> bool:
    """Whether a backbone's name is a Hub id that can be linked, rather than a folder or the scenes' model.

    Args:
        name: Name or path of the backbone.
        is_local: Whether it was a folder on the machine of the training; None if that is not recorded.
    """
    from ...scenes.backbone import BACKBONE_NAME

    return is_hub_id(name) and name != BACKBONE_NAME and not is_local and not Path(name).is_dir()


def _hub_link(name: str, kind: str = "") -> str:
    return f"[{code(name)}](https://hf.co/{kind}{quote(name)})"


def backbone(config: MSAEConfig, is_local: bool | None = None) -> str:
    """The backbone, linked if it is on the Hub; `is_local` as in `is_on_hub`."""
    name = config.base_model_name_or_path
    if not name:
        return "an unrecorded backbone"
    if is_of_scenes(config):
        return "the small SigLIP of rendered scenes that comes with `hf_msae`"
    revision = f" (revision {code(config.base_model_revision)})" if config.base_model_revision else ""
    linked = is_on_hub(name, is_local)
    return (_hub_link(name) if linked else code(public_model_name(name, is_local))) + revision


def conversion(found: Mapping[str, Any]) -> dict[str, Any]:
    """conversion.json as the card shows it; notes are a list of sentences."""
    notes = found.get("notes") or []
    return {
        "format": found.get("format") or "another library",
        "source": public_model_name(found.get("source")) or "an unrecorded file",
        "revision": found.get("revision"),
        "notes": [notes] if isinstance(notes, str) else list(notes),
    }


def usage(
    config: MSAEConfig,
    location: str,
    released: str | None,
    concepts: ConceptSection | None,
    is_local: bool | None = None,
) -> list[tuple[str, str]]:
    """How to use it with images or texts, if the backbone can be loaded by name, and with embeddings.

    Args:
        config: Config of the model.
        location: Arguments of `from_pretrained`, as Python code.
        released: Name of the model, if it is loaded by name.
        concepts: Names of the latents.
        is_local: Whether the backbone is a folder, as in `is_on_hub`.

    Returns:
        An introduction and lines of Python for each way.
    """
    load, imports = f"AutoModel.from_pretrained({location})", "import hf_msae\nfrom transformers import AutoModel"
    loaded = f"VisionTextMSAE.from_pretrained({location})"
    if released:
        load, imports = f'MSAEModel.from_released("{released}")', "from hf_msae import MSAEModel"
        loaded = f'VisionTextMSAE.from_pretrained("{released}")'
    k = min(32, config.k if config.activation == "topk" else config.num_latents)
    encode = (
        f"{imports}\n\nmsae = {load}\n"
        f"values, indices = msae.encode_topk(embeddings, k={k})  # (n, {k}) each: strengths, and which latents"
    )
    blocks = []
    if is_of_scenes(config) or is_on_hub(config.base_model_name_or_path, is_local):
        of_text, of_block = config.hook_point.startswith("text"), "layers" in config.hook_point
        item = '"a red star in a meadow"' if of_text else 'Path("photo.jpg")'
        if not of_block:
            text = f"The {'concepts' if concepts else 'latents'} in a {'text' if of_text else 'picture'}:"
            line = f"print(model.explain({item}))"
        elif of_text:
            text, line = "The latents of a text's tokens:", f"latents = model.text_latents([{item}])"
        else:
            text = "Where a latent is active in a picture:"
            latent = json.dumps(concepts.names[0], ensure_ascii=False) if concepts and concepts.names else 0
            line = f"activations = model.patch_map({item}, {latent})  # (rows, columns)"
        path = "" if of_text else "from pathlib import Path\n\n"
        blocks.append((text, f"{path}from hf_msae import VisionTextMSAE\n\nmodel = {loaded}\n{line}"))
    return [*blocks, (f"With embeddings of your own, {config.d_in} numbers each:", encode)]


def data_title(data: Mapping[str, Any] | None) -> str:
    """A short title of data, such as "rendered scenes (test)"."""
    if not data:
        return "unrecorded embeddings"
    dataset, split = data.get("dataset") or data.get("hub_dataset"), data.get("split") or data.get("dataset_split")
    if str(dataset).startswith("scenes:"):
        _, split, *_ = dataset.split(":")
        return f"rendered scenes ({split})"
    source = str(data.get("source", "not recorded"))
    title = dataset or (source if source.startswith("the given ") else Path(source).stem)
    return f"{title} ({split})" if split else str(title)


def data_name(data: Mapping[str, Any] | None) -> str:
    """Data in a sentence: how many embeddings, and of what."""
    if not data:
        return "unrecorded embeddings"
    number = data.get("num_samples", data.get("num_rows"))
    many = f"{number:,} embeddings" if number is not None else "embeddings"
    dataset, rows = data.get("dataset") or "", data.get("num_rows")
    tokens = f"{rows:,} " if rows is not None and rows != number else ""
    if dataset.startswith("scenes:"):
        _, split, count, *seed = dataset.split(":")
        name = f"`hf_msae.scenes` (split {escaped(split)}, seed {escaped(seed[0] if seed else 0)})"
        if data.get("column") == "text_embeds":
            return f"{many} of the captions of rendered scenes, {name}"
        return f"{many} of {tokens and f'{int(count):,} '}rendered scenes, {name}"
    split = data.get("split") or data.get("dataset_split")
    of_split = f", split {escaped(split)}" if split else ""
    hub = data.get("hub_dataset")
    if hub:
        return f"{many} of {tokens and f'{tokens}rows of '}{_hub_link(hub, 'datasets/')}{of_split}"
    title = data_title({key: value for key, value in data.items() if key not in ("split", "dataset_split")})
    return f"{many} of {tokens and f'{tokens}rows of '}{code(title)}{of_split}"


def measured_on(metrics: Mapping[str, Any]) -> str:
    """What the metrics were measured on, and whether it was held out, as far as that is recorded."""
    data = metrics.get("data")
    if not data:
        return f"{metrics['num_samples']:,} unrecorded embeddings"
    name = data_name({**data, "num_samples": metrics["num_samples"]})
    if data.get("held_out") is None:
        return f"{name}; it is not recorded whether the model was trained on them"
    return f"held-out data: {name}" if data["held_out"] else f"{name}, **from the training data**, none held out"


def statistics(data: Mapping[str, Any] | None) -> str | None:
    """Mean and spread of the training embeddings, if they are recorded."""
    if not data or data.get("spread") is None:
        return None
    return (
        f"Their mean has length {figure(data['mean_length'])}, and each of their {escaped(data['width'])} dimensions "
        f"has a standard deviation of about {figure(data['spread'])}."
    )


def limits(config: MSAEConfig) -> str:
    """What does not hold for other embeddings of the same backbone."""
    if config.hook_point == "image_embeds":
        return (
            "It was trained on images. Text embeddings of the same backbone lie elsewhere (the modality gap): if they "
            "are encoded as they are, the gap dominates every code. `VisionTextMSAE.center_texts` corrects the mean, "
            "not the spread; the figures above say nothing about texts."
        )
    if config.hook_point == "text_embeds":
        return (
            "It was trained on texts. Image embeddings of the same backbone lie elsewhere (the modality gap), and the "
            "figures above say nothing about them, or about texts of another kind or length."
        )
    tower = "text" if config.hook_point.startswith("text") else "vision"
    return (
        f"It was trained on the tokens that leave a block of the {tower} tower, one embedding per token. The figures "
        "are over tokens. Tokens live in another space than pooled embeddings, so words do not point at their latents."
    )


def citation(config: MSAEConfig, record: TrainingRecord | None) -> str:
    """BibTeX entries of the method's paper and of the software, in the version that made the model."""
    entries = []
    if config.nesting == "topk":
        entries.append(MSAE_CITATION)
    for name in dict.fromkeys((config.nesting, config.activation)):
        if name in _OTHER_CITATIONS and not (name == "topk" and config.activation != "topk"):
            key, number, title = _OTHER_CITATIONS[name]
            entries.append(
                f"@misc{{{key},\n  title         = {{{title}}},\n  eprint        = {{{number}}},\n"
                "  archivePrefix = {arXiv}\n}"
            )
    version = record.versions.get("hf_msae") if record else None
    software = _SOFTWARE.replace("VERSION", f",\n  version = {{{version}}}" if version else "")
    return "\n\n".join([*entries, software])
