"""Turn a checkpoint of another library into an MSAE that computes the same, or an MSAE into SAELens' format.

The format is detected from the files: the MSAE authors' .pth, SAELens, sparsify, dictionary_learning (ae.pt),
overcomplete, ViT-Prisma, saev and others. No code in a file is run: only tensors and plain numbers are read. Flags
supply settings that a checkpoint lacks, and override those that it has. A checkpoint that no MSAE can reproduce
(transcoders, or embeddings that are standardized one by one) is refused with the reason.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from transformers.utils.logging import disable_progress_bar

from .._utils.argument_parser import MSAEArgumentParser, flag
from .._utils.atomic import atomic_path, make_folder
from .._utils.json_files import write_json
from .._utils.redaction import public
from ..hub.converters import FORMATS, read_checkpoint
from ..model.config_fields import MSAEConfigFields
from ..training.flags import parse_weights

if TYPE_CHECKING:
    from ..hub.converters.checkpoint import ForeignCheckpoint
    from ..model.modeling_msae import MSAEModel

EXAMPLE = """\
  hf-msae convert WolodjaZ/MSAE --output msae-clip-l14 --subfolder \\
    'ViT-L_14/centered/6144_768_TopKReLU_64_RW_False_False_0.0_cc3m_ViT-L~14_train_image_2905936_768.pth'
  hf-msae convert downloads/sae --output my-msae --base_model_name_or_path openai/clip-vit-base-patch32 \\
    --hook_point vision.layers.9
  hf-msae convert my-msae --output my-msae-saelens --to saelens"""

# Files of another model that would be taken for the new one's.
_OF_ANOTHER_MODEL = {
    "msae": (
        *("metrics.json", "training.json", "README.md", "concepts"),
        *("model.safetensors.index.json", "*-of-*.safetensors"),
    ),
    "saelens": ("sparsity.safetensors", "runner_cfg.json"),
}
_CONFIG_FIELDS = (
    *("base_model_name_or_path", "base_model_revision", "hook_point", "activation", "k", "nesting", "nesting_ks"),
    *("nesting_widths", "nesting_weights", "reconstruction_loss", "soft_cap"),
)


@dataclass
class ConvertArguments:
    """What to convert, and into what."""

    _argument_group_name: ClassVar[str] = "conversion"

    source: str = flag("File, folder or Hub id (user/name) to convert.")
    output: str = flag("Folder to write.")
    subfolder: str | None = flag("Folder or file within source.", None)
    revision: str | None = flag("Branch, tag or commit of a source on the Hub.", None)
    format: str | None = flag(
        f"Format of source, one of {', '.join(FORMATS)}. Defaults to the one detected from its files.", None
    )
    to: Literal["msae", "saelens"] = flag(
        "Format to write. msae: config.json and model.safetensors. saelens: an SAE that sae-lens loads, made of an "
        "MSAE; it has no levels, so one k is exported.",
        "msae",
    )
    overwrite: bool = flag("Replace the files of a conversion in a folder that has other files too.", False)

    def __post_init__(self):
        if self.to == "saelens" and (self.format or self.subfolder):
            raise ValueError("--format and --subfolder are for other libraries' checkpoints, not with --to saelens")


def _override_arguments() -> type:
    """Make a dataclass of what a checkpoint may lack: fields of MSAEConfig, and statistics of embeddings."""
    types = {item.name: item.type for item in fields(MSAEConfigFields)} | {"nesting_weights": list[str]}
    helps = {name: text.replace("%", "%%") for name, text in MSAEConfigFields.field_help().items()}
    helps["k"] += " With --to saelens, the k that is exported."
    flags = [(name, types[name] | None, flag(helps[name], None)) for name in _CONFIG_FIELDS]
    mean = flag(
        "File (.npy or .safetensors) with the mean to subtract from embeddings, one number per column, if the "
        "checkpoint needs it and does not contain it.",
        None,
    )
    scale = flag(
        "Factor of embeddings after the mean is subtracted, if the checkpoint needs it and does not contain it. 1 "
        "without --input_mean means that it was trained on raw embeddings.",
        None,
    )
    flags += [("input_mean", str | None, mean), ("input_scale", float | None, scale)]
    group = {"_argument_group_name": "settings that the checkpoint lacks or has wrong"}
    return make_dataclass("OverrideArguments", flags, namespace=group)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with these words, or those of the process."""
    parser = MSAEArgumentParser(
        [ConvertArguments, _override_arguments()], __doc__, EXAMPLE, prog="hf-msae convert", first_words=["source"]
    )
    disable_progress_bar()  # loading and saving weights takes only a moment
    args, given = parser.parse(argv)
    overrides = {name: value for name, value in vars(given).items() if value is not None}
    if args.to == "saelens" and (unused := [f"--{name}" for name in overrides if name != "k"]):
        parser.error(f"{', '.join(unused)}: an MSAE has all that; with --to saelens only --k can be chosen")
    with parser.reporting_errors():
        check_output(Path(args.output).expanduser(), args.to, args.overwrite)
        if args.to == "saelens":
            _export(args, given.k)
        else:
            weights = overrides.get("nesting_weights")
            if weights is not None:
                overrides["nesting_weights"] = parse_weights(weights)
            _convert(args, overrides)


def _convert(args: ConvertArguments, overrides: dict[str, Any]) -> None:
    found = read_checkpoint(args.source, args.format, args.subfolder, args.revision, **overrides)
    model, output = found.to_model(overrides), Path(args.output).expanduser()
    local = Path(args.source).expanduser()
    record = {
        "format": found.format,
        "source": local.resolve().name if local.exists() else args.source,
        "subfolder": args.subfolder,
        "revision": found.revision,
        "given": public(overrides),
        "notes": found.notes,
    }
    with _replacing(output) as folder:
        model.save_pretrained(folder)
        write_json(folder / "conversion.json", record)
    _report(model, found)
    print(f"\nThe MSAE is in {args.output}. To use it:\n")
    print("    from hf_msae import MSAEModel")
    print(f'    msae = MSAEModel.from_pretrained("{args.output}")')
    print(f"    values, indices = msae.encode_topk(embeddings, k={min(32, model.config.num_latents)})")
    print(
        "\nIt computes the same as the original, but its quality on your embeddings is not measured yet.\n"
        f"To measure it: hf-msae evaluate {args.output} --data EMBEDDINGS"
    )


def _export(args: ConvertArguments, k: int | None) -> None:
    from ..hub.converters.saelens_export import export_saelens
    from ..hub.reading.opening import load_msae

    model = load_msae(args.source, args.revision)
    with _replacing(Path(args.output).expanduser()) as folder:
        export_saelens(model, folder, k)
    print(f"{args.source} is now in {args.output} as an SAE of SAELens. To use it:\n")
    print("    from sae_lens import SAE")
    print(f'    sae = SAE.load_from_disk("{args.output}")')
    print("    code = sae.encode(embeddings)  # raw embeddings; the codes are the MSAE's")
    if model.config.num_levels > 1:
        print("\nSAELens has no levels: those of the training are recorded in cfg.json (metadata.trained_with).")


def _report(model: MSAEModel, found: ForeignCheckpoint) -> None:
    from ..metrics.levels import describe_levels

    config = model.config
    kept = "" if config.k is None else f", k={config.k}"
    where = config.base_model_name_or_path or "an unknown backbone"
    print(f"format      {found.format}")
    print(f"sizes       {config.d_in} columns, {config.num_latents} latents{', tied' if config.tied else ''}")
    print(f"activation  {config.activation}{kept}")
    print(f"levels      {describe_levels(config)}")
    print(f"embeddings  {config.hook_point} of {where}")
    for note in found.notes:
        print(f"note        {note}")


def check_output(output: Path, kind: str, overwrite: bool) -> None:
    """Check, before any work, that the folder may be written."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"{output} has files in it: choose another folder, or replace them with --overwrite")
    if left := sorted(file.name for pattern in _OF_ANOTHER_MODEL[kind] for file in output.glob(pattern)):
        raise ValueError(
            f"{output} has {', '.join(left)} of another model, which would be taken for the new one's: move them "
            "away, or choose another folder"
        )


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """Yield a temporary folder; once all files are written, they become those of `output`."""
    make_folder(output.parent)
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
