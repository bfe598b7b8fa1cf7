"""Embed the images or captions of a dataset with CLIP, SigLIP, SigLIP 2 or DINOv2, for hf-msae train.

The output folder is a Hugging Face dataset with one column per hook point, the labels of the original dataset, and
activations.json, which records where the embeddings come from. Running an interrupted command again continues it. For
several processes, use `accelerate launch -m hf_msae.cli.extract` or `torchrun -m hf_msae.cli.extract`.
"""

from __future__ import annotations

import re
import shlex
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from transformers.utils.logging import disable_progress_bar

from .._utils.argument_parser import MSAEArgumentParser, flag
from .checks import changed, check_least, refuse_without

EXAMPLE = """\
  hf-msae extract --backbone google/siglip2-base-patch16-224 \\
      --dataset path/to/images --image_column image --output_dir embeddings/train

  accelerate launch -m hf_msae.cli.extract --backbone openai/clip-vit-base-patch16 \\
      --dataset 'shards/*.tar' --streaming --hook_point image_embeds vision.layers.6 vision.layers.9 \\
      --tokens patches --tokens_per_row 16 --dtype float16 --num_workers 4 --output_dir embeddings/blocks"""


# Names of splits and folders that are not for training, such as "test", "validation[:100]" and "celeba-test".
_HELD_OUT = re.compile(r"(?<![a-z])(test|val|valid|validation|eval|dev)(?![a-z])", re.IGNORECASE)


@dataclass
class ExtractionArguments:
    """The backbone, the dataset, and what to write."""

    _argument_group_name: ClassVar[str] = "extraction"

    backbone: str = flag(
        "Folder or Hub id of a CLIP, SigLIP, SigLIP 2 or DINOv2; 'scenes' or 'clipart' for one in this package."
    )
    dataset: str = flag(
        "Hub id; folder written by save_to_disk; folder of images, parquet files or webdataset tar files; a file of "
        "these kinds or a pattern like 'shards/*.tar'; scenes:SPLIT:N[:SEED], e.g. scenes:train:20000; clipart:SPLIT."
    )
    output_dir: str = flag("Folder to write the embeddings to.")
    hook_point: list[str] = flag(
        "Hook points to read in one forward pass, each written to a column of its own: image_embeds, text_embeds, or "
        "the output tokens of a block, such as vision.layers.6 or text.layers.6.",
        ["image_embeds"],
    )
    image_column: str | None = flag(
        "Column of the dataset with images or their paths. Defaults to 'image', or the only column of images.",
        None,
    )
    text_column: str | None = flag(
        "Column of the dataset with one caption per row; required by hook points of the text tower.", None
    )
    tokens: Literal["all", "patches"] = flag(
        "Tokens to keep at blocks: all except padding, or only image patches, without class token and registers.",
        "all",
    )
    tokens_per_row: int | None = flag(
        "Maximum number of tokens per row, sampled at random. Defaults to all tokens.", None
    )
    seed: int = flag("Random seed for sampling tokens.", 0)
    streaming: bool = flag("Read the dataset row by row instead of downloading or converting it first.", False)
    keep_columns: list[str] | None = flag(
        "Columns to copy next to the embeddings. Defaults to all numbers, booleans, labels and strings.", None
    )
    split: str | None = flag("Split of the dataset, if it has several.", None)
    test_size: float | None = flag(
        "Fraction of the rows to hold out as the split test, for a dataset without splits: --split test embeds these "
        "rows (always the same ones), --split train the others.",
        None,
    )
    max_rows: int | None = flag(
        "Maximum number of rows to embed, for a trial run: rows spread over the dataset, or the first ones of a "
        "stream. Defaults to all.",
        None,
    )
    dataset_config_name: str | None = flag("Configuration of a dataset on the Hub, if it has several.", None)
    dataset_revision: str | None = flag("Branch, tag or commit of a dataset on the Hub.", None)
    backbone_revision: str | None = flag("Branch, tag or commit of a backbone on the Hub.", None)
    backbone_dtype: Literal["float32", "bfloat16", "float16"] = flag("Precision of the backbone.", "float32")
    dtype: Literal["float32", "float16"] = flag("Precision in which embeddings are stored.", "float32")
    batch_size: int = flag("Rows per process and forward pass; affects speed only.", 64)
    num_workers: int = flag(
        "Extra processes that decode images (for each main process) or render scenes; 0 uses none.", 0
    )
    rows_per_shard: int = flag(
        "Rows per file, rounded to whole batches. An interruption loses at most one file.", 16384
    )
    on_unreadable: Literal["raise", "skip"] = flag(
        "What to do with rows whose image cannot be read or whose caption is missing: raise stops with the row's "
        "number; skip leaves them out and lists them in activations.json.",
        "raise",
    )
    overwrite_output_dir: bool = flag("Delete the embeddings in output_dir instead of continuing them.", False)
    hub_dataset_id: str | None = flag("Dataset on the Hub to push the finished embeddings to, as user/name.", None)
    hub_private_repo: bool = flag("Make the dataset on the Hub private, if it is created.", False)
    use_cpu: bool = flag("Use the CPU even if there is a GPU.", False)
    disable_tqdm: bool = flag("Hide the progress bars, which are only shown on a terminal.", False)

    def __post_init__(self):
        if self.max_rows is not None:
            check_least(self, max_rows=1)
        if self.test_size is not None and not 0 < self.test_size < 1:
            raise ValueError(f"test_size must be between 0 and 1, such as 0.2, got {self.test_size}")
        if not any(".layers." in each for each in self.hook_point):
            for name in changed(self, ("tokens", "tokens_per_row")):
                raise ValueError(f"--{name} is about tokens: name a block, such as vision.layers.6, with --hook_point")
        refuse_without(self, "hub_dataset_id", "hub_private_repo")


def next_flags(args: ExtractionArguments) -> str:
    """Return the flags of `hf-msae train` for the embeddings: those of a test split are for evaluation."""
    named = args.split or args.dataset.removeprefix("scenes:").removeprefix("clipart:").partition(":")[0]
    output = shlex.quote(args.output_dir)
    if any(_HELD_OUT.search(Path(name).name) for name in (named, args.output_dir)):
        return f"--train_data EMBEDDINGS --eval_data {output}"
    return f"--train_data {output}" + (" --eval_data EMBEDDINGS" if args.test_size is not None else "")


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and write the embeddings."""
    disable_progress_bar()
    parser = MSAEArgumentParser([ExtractionArguments], description=__doc__, example=EXAMPLE, prog="hf-msae extract")
    (args,) = parser.parse(argv)

    from .._utils.acceleration import build_accelerator
    from ..backbones import Backbone
    from ..backbones.extraction import PATIENCE, check_arguments, check_dataset, extract_activations
    from ..backbones.extraction.embedding import TokenChoice
    from ..backbones.image_text_data import open_dataset
    from ..backbones.pictures import remarks, spread_rows
    from ..embeddings import load_embeddings
    from ..embeddings.metadata import EmbeddingMetadata
    from ..embeddings.resuming import check_folder
    from ..hub import push_embeddings
    from ..hub.publishing.repository import Repository

    parser.kept_in = None if args.overwrite_output_dir else args.output_dir
    with parser.reporting_errors():
        numbers = args.batch_size, args.rows_per_shard, args.num_workers
        check_arguments(args.hook_point, args.text_column, *numbers, args.dtype, args.on_unreadable)
        TokenChoice(args.tokens, args.tokens_per_row, args.seed)  # checks them
        repository = Repository(args.hub_dataset_id, "dataset") if args.hub_dataset_id else None
        check_folder(Path(args.output_dir).expanduser())
        accelerator = build_accelerator(args.use_cpu, patience=PATIENCE)
        with accelerator.main_process_first():  # it downloads and renders the data for the others
            dataset = open_dataset(
                args.dataset,
                args.split,
                args.dataset_config_name,
                args.dataset_revision,
                args.num_workers or None,
                args.streaming,
                args.test_size,
            )
            chosen = {} if args.test_size is None else {"test_size": args.test_size, "dataset_split": args.split}
            if args.max_rows is not None:
                dataset, chosen["max_rows"] = spread_rows(dataset, args.max_rows), args.max_rows
                chosen |= {"streaming": True} if args.streaming else {}  # the rows are the first ones
            if args.dataset_config_name is not None:
                chosen["dataset_config_name"] = args.dataset_config_name
            columns = args.image_column, args.text_column, args.keep_columns
            check_dataset(dataset, args.hook_point, *columns, args.on_unreadable)
            for remark in remarks(args.dataset, list(dataset.features or ())) if accelerator.is_main_process else ():
                warnings.warn(remark, stacklevel=2)
            if repository is not None and accelerator.is_main_process:
                repository.create(args.hub_private_repo or None)  # before hours of work
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
            metadata={"dataset": args.dataset, "dataset_revision": args.dataset_revision, **chosen},
            accelerator=accelerator,
            progress=not args.disable_tqdm,
            on_unreadable=args.on_unreadable,
            tokens=args.tokens,
            tokens_per_row=args.tokens_per_row,
            seed=args.seed,
        )
    if accelerator.is_main_process:
        for hook_point in args.hook_point:
            written = load_embeddings(args.output_dir, hook_point, verify=False)  # just written
            of_rows = f" (tokens of {len(written.dataset)} rows)" if written.has_tokens else ""
            print(f"{args.output_dir}: {len(written)} {hook_point} of width {written.width}{of_rows}")
        skipped = EmbeddingMetadata.load(Path(args.output_dir).expanduser()).skipped
        if skipped:
            some = ", ".join(map(str, skipped[:8])) + (", ..." if len(skipped) > 8 else "")
            print(f"skipped: {len(skipped)} unreadable rows ({some}), listed in activations.json")
        kept = [name for name in written.dataset.column_names if name not in args.hook_point]
        more = f" and {len(kept) - 8} more" if len(kept) > 8 else ""
        print(f"other columns: {', '.join(kept[:8]) or 'none'}{more}")
        print(f"extracted with {backbone.label} on {accelerator.num_processes} x {accelerator.device.type}\n")
        if args.hub_dataset_id:
            with parser.reporting_errors():
                pushed = push_embeddings(args.output_dir, args.hub_dataset_id, args.hub_private_repo)
            print(f"pushed to {pushed.url}\n")
        hook_point = "" if "image_embeds" in args.hook_point else f" --hook_point {args.hook_point[0]}"
        print(f"Next: hf-msae train {next_flags(args)}{hook_point} --output_dir outputs/msae")
    accelerator.end_training()


if __name__ == "__main__":
    main()
