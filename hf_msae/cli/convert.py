"""Turn a checkpoint of another library into an MSAE that computes the same, or an MSAE into SAELens' format.

The format is detected from the files: the MSAE authors' .pth, SAELens, sparsify, dictionary_learning (ae.pt),
overcomplete, ViT-Prisma, saev and others. Nothing in a file is run: only tensors and plain numbers are read. Flags
supply what a checkpoint lacks, and take precedence over what it says. What no MSAE can compute (embeddings that are
standardized one by one, transcoders) is refused with the reason.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from transformers.utils.logging import disable_progress_bar

from .._utils.argument_parser import MSAEArgumentParser
from .._utils.atomic import atomic_path
from .._utils.json_files import write_json
from .._utils.redaction import public
from ..hub.converters import FORMATS, read_checkpoint
from ..hub.converters.checkpoint import ForeignCheckpoint
from ..hub.converters.saelens_export import export_saelens
from ..hub.reading.opening import load_msae
from ..model.configuration_msae import MSAEConfig
from ..model.modeling_msae import MSAEModel

EXAMPLE = """\
  hf-msae convert WolodjaZ/MSAE --output msae-clip-l14 --subfolder \\
    'ViT-L_14/centered/6144_768_TopKReLU_64_RW_False_False_0.0_cc3m_ViT-L~14_train_image_2905936_768.pth'
  hf-msae convert downloads/sae --output my-msae --base_model_name_or_path openai/clip-vit-base-patch32 \\
    --hook_point vision.layers.9
  hf-msae convert my-msae --output my-msae-saelens --to saelens"""
_HELP = {name: text.replace("%", "%%") for name, text in MSAEConfig.field_help().items()}

# Files of another model that would be taken for the new one's.
_OF_ANOTHER_MODEL = {
    "msae": (
        "metrics.json",
        "training.json",
        "README.md",
        "concepts",
        "model.safetensors.index.json",
        "*-of-*.safetensors",
    ),
    "saelens": ("sparsity.safetensors", "runner_cfg.json"),
}


@dataclass
class ConvertArguments:
    """What to convert, and into what."""

    _argument_group_name: ClassVar[str] = "conversion"

    source: str = field(metadata={"help": "File, folder or Hub id (user/name) to convert."})
    output: str = field(metadata={"help": "Folder to write."})
    subfolder: str | None = field(default=None, metadata={"help": "Folder or file within source."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a source on the Hub."})
    format: str | None = field(
        default=None, metadata={"help": f"Format of source, one of {', '.join(FORMATS)}. Default: detected."}
    )
    to: Literal["msae", "saelens"] = field(
        default="msae",
        metadata={"help": "Format to write. msae: config.json and model.safetensors. saelens: an SAE that sae-lens "
                  "loads, made of an MSAE; it has no levels, so one k is exported."},
    )  # fmt: skip
    overwrite: bool = field(
        default=False, metadata={"help": "Replace the files of a conversion in a folder that has other files too."}
    )

    def __post_init__(self):
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"there is no format {self.format!r}; known are {', '.join(FORMATS)}")
        if self.to == "saelens" and self.format is not None:
            raise ValueError("--format is for foreign checkpoints; with --to saelens the source is an MSAE")


@dataclass
class KnownArguments:
    """What the checkpoint lacks or has wrong: fields of MSAEConfig, and statistics of embeddings."""

    _argument_group_name: ClassVar[str] = "what the checkpoint does not say"

    base_model_name_or_path: str | None = field(default=None, metadata={"help": _HELP["base_model_name_or_path"]})
    base_model_revision: str | None = field(default=None, metadata={"help": _HELP["base_model_revision"]})
    hook_point: str | None = field(
        default=None,
        metadata={"help": "Where in the backbone the embeddings come from: image_embeds, text_embeds, "
                  "vision.layers.{i} or text.layers.{i}."},
    )  # fmt: skip
    activation: Literal["relu", "topk", "batch_topk", "jump_relu"] | None = field(
        default=None, metadata={"help": _HELP["activation"]}
    )
    k: int | None = field(
        default=None,
        metadata={"help": "Number of activations that codes keep; for topk and batch_topk, the k of the activation. "
                  "With --to saelens, the k that is exported."},
    )  # fmt: skip
    nesting: Literal["topk", "prefix", "none"] | None = field(default=None, metadata={"help": _HELP["nesting"]})
    nesting_ks: list[int] | None = field(
        default=None,
        metadata={"help": "The k of each level, ascending, if levels keep the k largest activations."},
    )
    nesting_widths: list[int] | None = field(
        default=None,
        metadata={"help": "Number of latents of each level, if levels are prefixes of the dictionary."},
    )
    nesting_weights: list[str] | None = field(
        default=None,
        metadata={"help": "Weights of the levels in the loss: uniform, reverse, or a number per level."},
    )
    reconstruction_loss: Literal["mse", "nmse", "cosine"] | None = field(
        default=None, metadata={"help": "Loss of the training, for continuing it."}
    )
    soft_cap: float | None = field(default=None, metadata={"help": _HELP["soft_cap"]})
    input_mean: str | None = field(
        default=None,
        metadata={"help": "File (.npy or .safetensors) with the mean to subtract from embeddings, one number per "
                  "column, if the checkpoint needs it and does not hold it."},
    )  # fmt: skip
    input_scale: float | None = field(
        default=None,
        metadata={"help": "Factor of embeddings after the mean is subtracted, if the checkpoint needs it and does "
                  "not hold it. 1 without --input_mean means that it was trained on raw embeddings."},
    )  # fmt: skip

    def overrides(self) -> dict[str, Any]:
        """Return the flags that were given."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        weights = given.get("nesting_weights")
        if weights is not None:
            try:
                given["nesting_weights"] = [float(weight) for weight in weights]
            except ValueError:
                given["nesting_weights"] = weights[0] if len(weights) == 1 else weights
        return given


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with these words, or those of the process."""
    parser = MSAEArgumentParser(
        [ConvertArguments, KnownArguments], __doc__, EXAMPLE, prog="hf-msae convert", first_word="source"
    )
    disable_progress_bar()  # loading and saving weights takes only a moment
    args, known = parser.parse(argv)
    overrides = known.overrides()
    if args.to == "saelens" and (unused := [f"--{name}" for name in overrides if name != "k"]):
        parser.error(f"{', '.join(unused)}: an MSAE has all that; with --to saelens only --k can be chosen")
    with parser.reporting_errors():
        output = Path(args.output).expanduser()
        check_output(output, args.to, args.overwrite)
        if args.to == "saelens":
            _export(args, output, known.k)
        else:
            _convert(args, output, overrides)


def _convert(args: ConvertArguments, output: Path, overrides: dict[str, Any]) -> None:
    found = read_checkpoint(args.source, args.format, args.subfolder, args.revision, **overrides)
    model = found.to_model(overrides)
    with replacing(output) as folder:
        model.save_pretrained(folder)
        write_json(folder / "conversion.json", record(args, found, overrides))
    _report(model, found)
    print(f"\nThe MSAE is in {args.output}. To use it:\n")
    print("    from hf_msae import MSAEModel")
    print(f'    msae = MSAEModel.from_pretrained("{args.output}")')
    print(f"    values, latents = msae.encode_topk(embeddings, k={min(32, model.config.num_latents)})")
    print(
        "\nIt computes the same as the original, but its quality on your embeddings is not "
        f"measured yet.\nThat does: hf-msae evaluate {args.output} --data EMBEDDINGS"
    )


def _export(args: ConvertArguments, output: Path, k: int | None) -> None:
    if args.subfolder is not None:
        raise ValueError("--subfolder is for foreign checkpoints; name the MSAE's folder as source")
    model = load_msae(args.source, args.revision)
    with replacing(output) as folder:
        export_saelens(model, folder, k)
    print(f"{args.source} is now in {args.output} as an SAE of SAELens. To use it:\n")
    print("    from sae_lens import SAE")
    print(f'    sae = SAE.load_from_disk("{args.output}")')
    print("    code = sae.encode(embeddings)  # raw embeddings; the codes are the MSAE's")
    if model.config.num_levels > 1:
        print("\nSAELens has no levels: those of the training are recorded in cfg.json (metadata.trained_with).")


def record(args: ConvertArguments, found: ForeignCheckpoint, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the content of conversion.json. Of a local source it has only the last part of the path."""
    local = Path(args.source).expanduser()
    return {
        "format": found.format,
        "source": local.resolve().name if local.exists() else args.source,
        "subfolder": args.subfolder,
        "revision": found.revision,
        "given": public(overrides),
        "notes": found.notes,
    }


def _report(model: MSAEModel, found: ForeignCheckpoint) -> None:
    config = model.config
    kept = "" if config.k is None else f", k={config.k}"
    levels = {"topk": f"levels of the {config.nesting_ks} largest", "prefix": f"prefixes of {config.nesting_widths}"}
    where = config.base_model_name_or_path or "an unknown backbone"
    print(f"format      {found.format}")
    print(f"sizes       {config.d_in} columns, {config.num_latents} latents{', tied' if config.tied else ''}")
    print(f"activation  {config.activation}{kept}; {levels.get(config.nesting, 'one level')}")
    print(f"embeddings  {config.hook_point} of {where}")
    for note in found.notes:
        print(f"note        {note}")


def check_output(output: Path, kind: str, overwrite: bool) -> None:
    """Check, before any work, that the folder may be written.

    Raises:
        ValueError: It is a file; or it has files and `overwrite` is false, or files that would be taken for the new
            model's.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"{output} has files in it: choose another folder, or pass --overwrite to replace those of a conversion"
        )
    if left := sorted(file.name for pattern in _OF_ANOTHER_MODEL[kind] for file in output.glob(pattern)):
        raise ValueError(
            f"{output} has {', '.join(left)} of another model, which would be taken for the new one's: move them "
            "away, or choose another folder"
        )


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """Yield a temporary folder; once all files are written, they become those of `output`."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists() or not any(output.iterdir()):
        with atomic_path(output) as folder:
            folder.mkdir()
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix=".", dir=output.parent) as folder:
        yield Path(folder)
        # The file by which readers recognize a model comes last.
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name in ("config.json", "cfg.json")):
            with atomic_path(output / file.name) as unfinished:
                os.replace(file, unfinished)


if __name__ == "__main__":
    main()
