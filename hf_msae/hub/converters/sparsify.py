"""EleutherAI's sparsify: a folder per hook point, with `cfg.json` and `sae.safetensors`.

encoder.weight (n, d), encoder.bias (n,), W_dec (n, d), b_dec (d,). The code is the k largest of
relu((x - b_dec) @ encoder.weight.T + encoder.bias), the reconstruction code @ W_dec + b_dec. multi_topk is a second
term of the training loss and changes neither.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from .checkpoint import ForeignCheckpoint
from .places import origin, tower_of
from .reading import OTHER_OUTPUT, state_dict
from .source import CheckpointSource

_CONFIG, _WEIGHTS = "cfg.json", "sae.safetensors"
_TENSORS = {"encoder.weight": "n d", "encoder.bias": "n", "W_dec": "n d", "b_dec": "d"}
_REFUSED = {
    "transcode": OTHER_OUTPUT,
    "skip_connection": "it adds a linear map of its input to the reconstruction",
    "signed": "its codes have negative entries, which no MSAE has",
}
_GROUPMAX = {"groupmax": "it keeps the largest activation of each of k groups of latents, not the k largest of all"}


def recognizes(source: CheckpointSource) -> bool:
    """Whether sparsify's two files are in this folder or in ones below."""
    return bool(source.folders_with(_CONFIG, _WEIGHTS))


def read(source: CheckpointSource) -> ForeignCheckpoint:
    """Read a sparsify folder; raises as `read_checkpoint`."""
    folder = source.folder_of(_CONFIG, _WEIGHTS)
    settings = source.settings(f"{folder}{_CONFIG}")
    settings.refuse(_REFUSED)
    settings.choice("activation", ("topk",), default="topk", refused=_GROUPMAX)  # older files do not have it
    sizes = settings.sizes("d_in", "num_latents", "expansion_factor")
    name = source.full_name(f"{folder}{_WEIGHTS}")
    tensors, _ = state_dict(source.read(f"{folder}{_WEIGHTS}"), name, _TENSORS, **sizes)
    # The folder is named after a module of a transformers model; the names of image encoders say that they are one.
    module = PurePosixPath(name).parent.name.partition("_seed")[0]
    place = f"the output of the module that its folder, {module}, is named after"
    where = origin(source, name, [module], tower=tower_of(module), place=place)
    if "hook_point" in where:
        source.notes.append(f"The folder's name, {module}, was taken for the module whose output it was trained on.")
    return ForeignCheckpoint(
        encoder=tensors["encoder.weight"].T,
        decoder=tensors["W_dec"],
        latent_bias=tensors["encoder.bias"],
        bias=tensors["b_dec"],
        config={"activation": "topk", "k": settings.k("k"), **where},
    )
