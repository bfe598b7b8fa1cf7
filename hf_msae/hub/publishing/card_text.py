"""What a model card says in words: of a config, of data, of where a model is from and of how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """A number as tables show it."""
    return "" if value is None or value != value else f"{value:.4g}" if isinstance(value, float) else str(value)


def rounded(value: Any) -> Any:
    """The number that `figure` shows."""
    return float(figure(value)) if isinstance(value, float) else value


def cell(value: Any) -> str:
    """A value in a cell of a Markdown table, whatever it is."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return text.replace("`", "\\`").replace("*", "\\*").replace("[", "\\[")


def kind(config: MSAEConfig) -> str:
    """What sort of autoencoder it is."""
    activation = _ACTIVATIONS[config.activation]
    if config.nesting == "none":
        return f"{activation} sparse autoencoder"
    return "Matryoshka sparse autoencoder" + ("" if activation == "ReLU" else f" ({activation})")


def nesting(config: MSAEConfig) -> str:
    """How its levels nest, which has two senses in the field, and how many latents fire."""
    ks, widths = config.nesting_ks, config.nesting_widths
    if config.nesting == "topk":
        told = (
            "One code holds every granularity (nested top-k): its k largest latents are an explanation in themselves, "
            f"and it was trained to be one at k = {', '.join(map(str, ks))}. All latents are eligible at every level."
        )
    elif config.nesting == "prefix":
        trained = f"at widths drawn anew for each step, {config.random_prefixes} at a time"
        if not config.random_prefixes:
            trained = f"for N = {', '.join(map(str, widths))}"
        told = (
            "Its dictionary nests (the sense of Matryoshka of arXiv 2503.17547): the first N latents are a coarser "
            f"dictionary by themselves, {trained}."
        )
    else:
        told = "It has one level, the full code; nothing nests."
    of_activation = {
        "relu": "",
        "topk": f" No more than {config.k} latents fire for an embedding.",
        "batch_topk": f" {config.k} latents fire for an embedding on average, for some more and for others fewer.",
        "jump_relu": " Each latent fires above a threshold of its own that it has learned.",
    }
    return told + of_activation[config.activation]


def embeddings(config: MSAEConfig) -> str:
    """What it is an autoencoder of."""
    hook_point = config.hook_point
    told = {"image_embeds": "image embeddings", "text_embeds": "text embeddings"}.get(hook_point, "tokens")
    return f"{told} (`{hook_point}`)"


def is_of_scenes(config: MSAEConfig) -> bool:
    """Whether its backbone is the small one of the scenes, which comes with the package."""
    from ...scenes.backbone import BACKBONE_NAME

    return config.base_model_name_or_path == BACKBONE_NAME


def is_on_hub(name: str | None, is_local: bool | None = None) -> bool:
    """Whether a backbone's name can be linked to: `owner/name`, no folder of this machine, not the scenes' model.

    Args:
        is_local: whether it was a folder where the model was trained, as far as that is recorded.
    """
    from ...scenes.backbone import BACKBONE_NAME

    return is_hub_id(name) and name != BACKBONE_NAME and not is_local and not Path(name).is_dir()


def backbone(config: MSAEConfig, is_local: bool | None = None) -> str:
    """Its backbone, with a link where there is one; `is_local` as in `is_on_hub`."""
    name = config.base_model_name_or_path
    if not name:
        return "a backbone that was not recorded"
    if is_of_scenes(config):
        return "the small SigLIP of rendered scenes that comes with `hf_msae`"
    revision = f" (revision `{config.base_model_revision}`)" if config.base_model_revision else ""
    linked = is_on_hub(name, is_local)
    return (f"[`{name}`](https://hf.co/{name})" if linked else f"`{public_model_name(name, is_local)}`") + revision


def conversion(found: Mapping[str, Any]) -> dict[str, Any]:
    """conversion.json as the card tells it; notes are a list of sentences."""
    notes = found.get("notes") or []
    return {
        "format": found.get("format") or "another library",
        "source": public_model_name(found.get("source")) or "a file that was not recorded",
        "revision": found.get("revision"),
        "notes": [notes] if isinstance(notes, str) else list(notes),
    }


def usage(
    config: MSAEConfig,
    where: str,
    released: str | None,
    concepts: ConceptSection | None,
    is_local: bool | None = None,
) -> list[tuple[str, str]]:
    """How to use it: with images or texts, if the backbone can be loaded, and with embeddings.

    Args:
        config: of the model.
        where: arguments of `from_pretrained`, as they stand in Python.
        released: its name, if it is to be loaded by that.
        concepts: its names.
        is_local: whether its backbone is a folder, as in `is_on_hub`.

    Returns:
        (what it is for, lines of Python) of each way.
    """
    load, imports = f"AutoModel.from_pretrained({where})", "import hf_msae\nfrom transformers import AutoModel"
    loaded = f"VisionTextMSAE.from_pretrained({where})"
    if released:
        load, imports = f'MSAEModel.from_released("{released}")', "from hf_msae import MSAEModel"
        loaded = f'VisionTextMSAE.from_pretrained("{released}")'
    k = min(32, config.k if config.activation == "topk" else config.num_latents)
    encode = (
        f"{imports}\n\nmsae = {load}\n"
        f"values, latents = msae.encode_topk(embeddings, k={k})  # (n, {k}) each: strengths, and which latents"
    )
    blocks = []
    if is_of_scenes(config) or is_on_hub(config.base_model_name_or_path, is_local):
        of_text, of_block = config.hook_point.startswith("text"), "layers" in config.hook_point
        item = '"a red star in a meadow"' if of_text else 'Path("photo.jpg")'
        if not of_block:
            text = f"What is in a {'text' if of_text else 'picture'}, by {'names' if concepts else 'latents'}:"
            line = f"print(model.explain({item}))"
        elif of_text:
            text, line = "The codes of a text's tokens:", f"codes = model.text_latents([{item}])"
        else:
            text = "Where in a picture a latent is active:"
            latent = repr(concepts.names[0]).replace("'", '"') if concepts and concepts.names else 0
            line = f"activations = model.patch_map({item}, {latent})  # (rows, columns)"
        path = "" if of_text else "from pathlib import Path\n\n"
        blocks.append((text, f"{path}from hf_msae import VisionTextMSAE\n\nmodel = {loaded}\n{line}"))
    alone = "With embeddings that are there already" if blocks else "With embeddings"
    return [*blocks, (f"{alone}, {config.d_in} numbers each:", encode)]


def data_title(data: Mapping[str, Any] | None) -> str:
    """What data is called, in few words: "rendered scenes (test)"."""
    if not data:
        return "embeddings that are not recorded"
    dataset, split = data.get("dataset") or data.get("hub_dataset"), data.get("split") or data.get("dataset_split")
    if str(dataset).startswith("scenes:"):
        _, split, *_ = dataset.split(":")
        return f"rendered scenes ({split})"
    source = str(data.get("source", "not recorded"))
    title = dataset or (source if source.startswith("the given ") else Path(source).stem)
    return f"{title} ({split})" if split else str(title)


def data_name(data: Mapping[str, Any] | None) -> str:
    """Data in a sentence: how many embeddings, of what."""
    if not data:
        return "embeddings that are not recorded"
    number = data.get("num_samples", data.get("num_rows"))
    many = f"{number:,} embeddings" if number is not None else "embeddings"
    dataset, rows = data.get("dataset") or "", data.get("num_rows")
    tokens = f"{rows:,} " if rows is not None and rows != number else ""
    if dataset.startswith("scenes:"):
        _, split, count, *seed = dataset.split(":")
        told = f"`hf_msae.scenes` (split {split}, seed {seed[0] if seed else 0})"
        if data.get("column") == "text_embeds":
            return f"{many} of the captions of rendered scenes, {told}"
        return f"{many} of {tokens and f'{int(count):,} '}rendered scenes, {told}"
    split = data.get("split") or data.get("dataset_split")
    of_split = f", split {split}" if split else ""
    hub = data.get("hub_dataset")
    if hub:
        return f"{many} of {tokens and f'{tokens}rows of '}[`{hub}`](https://hf.co/datasets/{hub}){of_split}"
    title = data_title({key: value for key, value in data.items() if key not in ("split", "dataset_split")})
    return f"{many} of {tokens and f'{tokens}rows of '}`{title}`{of_split}"


def measured_on(metrics: Mapping[str, Any]) -> str:
    """What the metrics were measured on, and whether it was held out, as far as whoever measured has said so."""
    data = metrics.get("data")
    if not data:
        return f"{metrics['num_samples']:,} embeddings; which, is not recorded"
    told = data_name({**data, "num_samples": metrics["num_samples"]})
    if data.get("held_out") is None:
        return f"{told}; whether the model was trained on them is not recorded"
    return f"held-out data: {told}" if data["held_out"] else f"{told}, **of the training data**: nothing was held out"


def statistics(data: Mapping[str, Any] | None) -> str | None:
    """Mean and spread of the training embeddings, where they are known."""
    if not data or data.get("spread") is None:
        return None
    return (
        f"Their mean is {figure(data['mean_length'])} long, and the standard deviation of one of their "
        f"{data['width']} dimensions is {figure(data['spread'])}."
    )


def limits(config: MSAEConfig) -> str:
    """What does not hold of other embeddings of the same backbone."""
    if config.hook_point == "image_embeds":
        return (
            "It was trained on images. Text embeddings of the same backbone lie elsewhere (the modality gap): encoded "
            "as they are, every text shows the gap first. `VisionTextMSAE.center_texts` makes up for the means, not "
            "for the different spread; the figures above say nothing about texts."
        )
    if config.hook_point == "text_embeds":
        return (
            "It was trained on texts. Image embeddings of the same backbone lie elsewhere (the modality gap), and the "
            "figures above say nothing about them; nor about texts of another kind and length."
        )
    tower = "text" if config.hook_point.startswith("text") else "vision"
    return (
        f"It was trained on the tokens that leave a block of the {tower} tower, one embedding for each token. Figures "
        "are over tokens. These live in another space than pooled embeddings, and words do not point at their latents."
    )


def citation(config: MSAEConfig, record: TrainingRecord | None) -> str:
    """BibTeX of the method's paper and of the software, in the version that the model was made with."""
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
