"""What the tests of the extraction share: data sets, and ways to run it in other processes."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import accelerate
import datasets
import numpy as np
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.embeddings import load_embeddings
from tests.tiny_backbones import CAPTIONS

ROOT = Path(__file__).parents[3]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
]


def encoded(row, kind="PNG"):
    noise = np.random.default_rng(row).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def picture(row):
    return Image.open(io.BytesIO(encoded(row)))


def labelled(rows=30):
    """A data set with an image, a caption, labels of several types, and columns that are not kept by default."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["circle", "square", "star"]),
            "is_red": datasets.Value("bool"),
            "score": datasets.Value("float64"),
            "boxes": datasets.List(datasets.Value("int64")),
            "raw": datasets.Value("binary"),
        }
    )
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": encoded(row), "path": None} for row in range(rows)],
            "caption": [CAPTIONS[row % 3] + " red" * (row % 4) for row in range(rows)],
            "label": [row % 3 for row in range(rows)],
            "is_red": [row % 2 == 0 for row in range(rows)],
            "score": [None if row == 4 else row / 7 for row in range(rows)],
            "boxes": [[row, 1] for row in range(rows)],
            "raw": [b"raw"] * rows,
        },
        features=features,
    )


def numbered(rows=40, bad=()):
    """Images with ids; those in `bad` cannot be decoded."""
    images = [
        {"bytes": b"no image" if row in bad else encoded(row), "path": f"photos/{row}.png"} for row in range(rows)
    ]
    features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": images, "id": list(range(rows))}, features=features)


def ids(folder):
    return datasets.load_from_disk(str(folder))["id"][:]


def column(folder, name="image_embeds"):
    return load_embeddings(folder, hook_point=name)[:].numpy()


class Counting(Backbone):
    """Counts the images it embeds, and kills its process before the batch number `last`."""

    rows, batches, last = 0, 0, None

    def embed_pixels(self, inputs):
        self.rows += len(inputs["pixel_values"])
        self.batches += 1
        if self.batches == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed_pixels(inputs)


def fork(function, *arguments, **settings):
    """Run a function in a fork of this process, a process group of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            function(*arguments, **settings)
            os._exit(0)
        finally:
            os._exit(3)
    return pid


def in_one_process(folder, dataset, output_dir, last=None, **settings):
    """Run the extraction; its process is killed before its batch number `last`."""
    backbone = Counting.from_pretrained(folder)
    backbone.last = last
    extract_activations(backbone, dataset, output_dir, **settings)


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _extract(folder, dataset, output_dir, last, settings):
    AcceleratorState._reset_state(True)
    os.environ["OMP_NUM_THREADS"] = "1"  # the threads of the parent are not in its forks
    backbone = Counting.from_pretrained(folder)
    backbone.last = last if torch.distributed.get_rank() == 1 else None
    extract_activations(backbone, dataset, output_dir, **settings)
    assert accelerate.PartialState().num_processes == 2


def in_two_processes(folder, dataset, output_dir, last=None, **settings):
    """Run the extraction in two forks; the second is killed before its batch number `last`."""
    accelerate.debug_launcher(_extract, (folder, dataset, output_dir, last, settings), num_processes=2)


def launch(launcher, script, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *launcher, str(script), "--use_cpu", "--disable_tqdm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)
