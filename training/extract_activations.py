"""
Embed a data set of images, captions or both with a CLIP, SigLIP, SigLIP 2 or DINOv2, ready for train_msae.py.

The output folder is a Hugging Face data set with one column per hook point, the data set's labels beside them, and
activations.json, which records where the embeddings come from. A stopped run continues when it is started again in the
same way. Runs as it is, or on several devices with `accelerate launch` or `torchrun`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from datasets import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

from hf_msae._utils.acceleration import build_accelerator
from hf_msae._utils.argument_parser import MSAEArgumentParser
from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.embeddings import load_embeddings
from hf_msae.embeddings.metadata import EmbeddingMetadata
from hf_msae.hub import push_embeddings
from hf_msae.hub.publishing.embeddings import require_repo

EXAMPLE = """\
  accelerate launch training/extract_activations.py --backbone google/siglip2-base-patch16-224 \\
      --dataset path/to/images --image_column image --output_dir embeddings/train

  accelerate launch training/extract_activations.py --backbone openai/clip-vit-base-patch16 \\
      --dataset 'shards/*.tar' --streaming --hook_point image_embeds vision.layers.6 vision.layers.9 \\
      --tokens patches --tokens_per_row 16 --dtype float16 --num_workers 4 --output_dir embeddings/blocks"""


@dataclass
class ExtractionArguments:
    """What is embedded by what."""

    _argument_group_name: ClassVar[str] = "extraction"

    backbone: str = field(
        metadata={
            "help": "Folder or Hub id of a CLIP, SigLIP, SigLIP 2 or DINOv2, or 'scenes', which comes with hf_msae."
        }
    )
    dataset: str = field(
        metadata={
            "help": "Hub id, folder written by save_to_disk, folder of images, of parquet or of webdataset tar files, "
            "such a file or a pattern like 'shards/*.tar', or scenes:SPLIT:N[:SEED], e.g. scenes:train:20000."
        }
    )
    output_dir: str = field(metadata={"help": "Folder for the embeddings."})
    hook_point: list[str] = field(
        default_factory=lambda: ["image_embeds"],
        metadata={
            "help": "What to write, a column each, in one forward pass: image_embeds, text_embeds, and the tokens "
            "that leave a block, as vision.layers.6 or text.layers.6."
        },
    )
    image_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of dataset with the images, or their paths. Unset: image, or the only one of images."
        },
    )
    text_column: str | None = field(
        default=None,
        metadata={"help": "Column of dataset with one caption per row; hook points of the text tower need it."},
    )
    tokens: Literal["all", "patches"] = field(
        default="all",
        metadata={
            "help": "Tokens kept at blocks: all but padding, or patches, without class token and registers of images."
        },
    )
    tokens_per_row: int | None = field(
        default=None, metadata={"help": "Tokens kept of each image or text at most, drawn at random. Unset: all."}
    )
    seed: int = field(default=0, metadata={"help": "Which tokens are drawn."})
    streaming: bool = field(
        default=False,
        metadata={"help": "Read the data set row by row as it comes, instead of converting or downloading it first."},
    )
    keep_columns: list[str] | None = field(
        default=None,
        metadata={"help": "Columns to write beside the embeddings. Unset: all numbers, booleans, labels and strings."},
    )
    split: str | None = field(default=None, metadata={"help": "Split of dataset, where it has several."})
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a data set on the Hub, where it has several."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a data set on the Hub."}
    )
    backbone_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a backbone on the Hub."}
    )
    backbone_dtype: Literal["float32", "bfloat16", "float16"] = field(
        default="float32", metadata={"help": "Precision the backbone computes in."}
    )
    dtype: Literal["float32", "float16"] = field(default="float32", metadata={"help": "How embeddings are stored."})
    batch_size: int = field(default=64, metadata={"help": "Rows per process and forward pass; changes speed only."})
    num_workers: int = field(
        default=0,
        metadata={"help": "Processes that decode images (per process) and render scenes; 0: none beside it."},
    )
    rows_per_shard: int = field(
        default=16384, metadata={"help": "Rows per file, and what an interruption can lose, in whole batches."}
    )
    on_unreadable: Literal["raise", "skip"] = field(
        default="raise",
        metadata={
            "help": "What becomes of rows whose image cannot be decoded or whose caption is missing: raise stops with "
            "the row's number; skip leaves them out and notes their numbers in activations.json."
        },
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete the embeddings in output_dir instead of continuing them."}
    )
    hub_dataset_id: str | None = field(
        default=None, metadata={"help": "Push the finished embeddings to this data set on the Hub, as user/name."}
    )
    hub_private_repo: bool = field(default=False, metadata={"help": "Make that data set private, if it is made."})
    use_cpu: bool = field(default=False, metadata={"help": "Use the CPU where there is a GPU too."})
    disable_tqdm: bool = field(default=False, metadata={"help": "No progress bar."})


def main(argv: list[str] | None = None) -> None:
    disable_progress_bar()
    parser = MSAEArgumentParser([ExtractionArguments], description=__doc__, example=EXAMPLE)
    (args,) = parser.parse(argv)

    if args.disable_tqdm:
        disable_progress_bars()  # those of reading and rendering data sets
    with parser.reporting_errors():
        accelerator = build_accelerator(args.use_cpu)
        if args.hub_dataset_id and accelerator.is_main_process:
            require_repo(args.hub_dataset_id, args.hub_private_repo)  # before hours of work
        with accelerator.main_process_first():  # the others find what it has downloaded, converted and rendered
            dataset = open_dataset(
                args.dataset,
                args.split,
                args.dataset_config_name,
                args.dataset_revision,
                args.num_workers or None,
                args.streaming,
            )
            backbone = Backbone.from_pretrained(
                args.backbone, args.backbone_revision, dtype=args.backbone_dtype, device=accelerator.device
            )
        extract_activations(
            backbone,
            dataset,
            args.output_dir,
            image_column=args.image_column,
            text_column=args.text_column,
            hook_points=args.hook_point,
            batch_size=args.batch_size,
            dtype=args.dtype,
            keep_columns=args.keep_columns,
            num_workers=args.num_workers,
            overwrite=args.overwrite_output_dir,
            rows_per_shard=args.rows_per_shard,
            metadata={"dataset": args.dataset, "dataset_revision": args.dataset_revision},
            accelerator=accelerator,
            progress=not args.disable_tqdm,
            on_unreadable=args.on_unreadable,
            tokens=args.tokens,
            tokens_per_row=args.tokens_per_row,
            seed=args.seed,
        )
    if accelerator.is_main_process:
        for hook_point in args.hook_point:
            written = load_embeddings(args.output_dir, hook_point)
            of_rows = f" (tokens of {len(written.dataset)} rows)" if written.has_tokens else ""
            print(f"{args.output_dir}: {len(written)} {hook_point} of width {written.width}{of_rows}")
        skipped = EmbeddingMetadata.load(Path(args.output_dir).expanduser()).skipped
        if skipped:
            some = ", ".join(map(str, skipped[:8])) + (", ..." if len(skipped) > 8 else "")
            print(f"left out, since they could not be read: {len(skipped)} rows ({some}), noted in activations.json")
        kept = [name for name in written.dataset.column_names if name not in args.hook_point]
        more = f" and {len(kept) - 8} more" if len(kept) > 8 else ""
        print(f"beside them: {', '.join(kept[:8]) or 'nothing'}{more}")
        print(f"by {backbone} on {accelerator.num_processes} x {accelerator.device.type}\n")
        if args.hub_dataset_id:
            with parser.reporting_errors():
                pushed = push_embeddings(args.output_dir, args.hub_dataset_id, args.hub_private_repo)
            print(f"pushed to {pushed.repo_url}\n")
        hook_point = "" if "image_embeds" in args.hook_point else f" --hook_point {args.hook_point[0]}"
        print(
            f"Next: python training/train_msae.py --train_data {args.output_dir}{hook_point} --output_dir outputs/msae"
        )
    accelerator.end_training()


if __name__ == "__main__":
    main()
