"""Train and examine a small MSAE on synthetic scenes, in a few minutes on a CPU.

Renders scenes, embeds them with the small SigLIP of this package, trains an MSAE and measures it, names its latents,
finds what drives a biased probe, and writes figures, a model card and a report. The same functions do this with other
backbones and images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._utils.argument_parser import MSAEArgumentParser, flag
from .checks import check_least

EXAMPLE = "  hf-msae quickstart --output_dir outputs/quickstart --num_train_scenes 20000 --num_train_epochs 40"


@dataclass
class QuickstartArguments:
    """Settings of the quickstart."""

    _argument_group_name: ClassVar[str] = "quickstart"

    output_dir: str = flag("Folder for everything that is written.", "outputs/quickstart")
    num_train_scenes: int = flag("Number of scenes to train on.", 10_000)
    num_eval_scenes: int = flag("Number of held-out scenes to evaluate on.", 5_000)
    num_latents: int = flag("Number of latents; the embeddings have 128 dimensions.", 1024)
    num_train_epochs: float = flag("Passes over the training embeddings.", 85.0)
    learning_rate: float = flag("Peak learning rate of Adam.", 1e-2)
    per_device_train_batch_size: int = flag("Embeddings per optimizer step.", 1024, aliases=("--batch_size",))
    seed: int = flag("Random seed of scenes, weights and batches.", 42)
    num_biased_scenes: int = flag("Number of scenes with mostly red stars, on which a biased probe is trained.", 3_000)
    num_workers: int = flag("Processes that render scenes.", 2, aliases=("--num_proc",))

    def __post_init__(self):
        least = 20  # as names need of pictures, and a probe of rows
        check_least(self, num_train_scenes=least, num_eval_scenes=least, num_biased_scenes=least, num_workers=1)
        check_least(self, num_latents=64)  # so that there are others to compare those that may drive the probe with


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and run."""
    parser = MSAEArgumentParser([QuickstartArguments], description=__doc__, example=EXAMPLE, prog="hf-msae quickstart")
    (arguments,) = parser.parse(argv)

    from .quickstart_steps import run_quickstart

    with parser.reporting_errors():
        run_quickstart(arguments)
