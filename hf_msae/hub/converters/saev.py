"""saev (github.com/OSU-NLP-Group/saev): `sae.pt`, a line of JSON and then a file of torch.save.

W_enc (d, n), b_enc (n,), W_dec (n, d), b_dec (d,), and possibly activation.threshold. The line is

    no schema    the settings alone: d_vit, exp_factor, ...; ReLU
    schema 1     {"schema", "cfg", "cls", ...}: cls is the activation, or "SparseAutoencoderConfig"
    schema 2-5   {"schema", "cfg", "commit", "lib"}: cfg["activation"] is {"cls", "params"}

What is computed changed over time, and not always with the schema. Without one, b_dec was subtracted before encoding
(saev 0.1.0); from schema 2 on it is not. Today's saev never subtracts it, not even for files that were trained with
it. Under schema 1 there were both, and nothing in a file says which.

Its SAEs are trained on tokens, by default on (x - mean) / scale (scale_mean and scale_norm of its data). A checkpoint
holds neither these numbers nor whether they were used.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .places import origin
from .reading import PARAMETERS, Settings, finite_number, reached, state_dict, the_one
from .source import CheckpointSource, read_torch
from .statistics import require_statistics

_THRESHOLD = "activation.threshold"
_SCHEMAS = (None, 1, 2, 3, 4, 5)
_ACTIVATIONS = ("Relu", "TopK", "BatchTopK")
_LONGEST_LINE = 2**16


def recognizes(source: CheckpointSource) -> bool:
    """Whether the folder's only `.pt` begins with a line of JSON that has a schema or a width."""
    files = source.matching("*.pt")
    if len(files) != 1:
        return False
    with open(source.path(files[0]), "rb") as file:
        line = file.readline(_LONGEST_LINE)
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):  # another library's file
        return False
    return isinstance(header, dict) and ("d_vit" in header or {"schema", "cfg"} <= set(header))


def read(source: CheckpointSource) -> ForeignCheckpoint:
    """Read a saev file; raises as `read_checkpoint`."""
    file = the_one(source.matching("*.pt"), source.name, ".pt file")
    name = source.full_name(file)
    with open(source.path(file), "rb") as opened:
        header = _header(opened.readline(_LONGEST_LINE), name, source)
        content = read_torch(io.BytesIO(opened.read()), name)
    schema = header.get("schema")
    settings = header if schema is None else header.inner("cfg")
    sizes = settings.sizes("d_model" if "d_model" in settings else "d_vit", "d_sae", "exp_factor")
    tensors, _ = state_dict(content, name, PARAMETERS, {_THRESHOLD: ""}, **sizes)
    config, threshold = _activation(header, settings, tensors, source)
    if threshold is None and _THRESHOLD in tensors:
        raise ValueError(f"{name} also has {_THRESHOLD}, which the activation in its first line does not use")
    config |= origin(source, name, known="tokens of an image encoder")
    _require_statistics(header, settings, source, name)
    return ForeignCheckpoint(
        encoder=tensors["W_enc"],
        decoder=tensors["W_dec"],
        latent_bias=tensors["b_enc"],
        bias=tensors["b_dec"],
        subtracts_bias=_subtracts_bias(schema, tensors["b_dec"], source),
        threshold=threshold,
        config=config,
    )


def _header(line: bytes, name: str, source: CheckpointSource) -> Settings:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} does not begin with a line of JSON, as files of saev do") from error
    schema = header.get("schema")
    if schema not in _SCHEMAS:
        raise ValueError(f"{name} has schema {schema!r} of saev; hf_msae knows those up to {_SCHEMAS[-1]}")
    return Settings(header, f"the first line of {name}", source.given)


def _require_statistics(header: Settings, settings: Settings, source: CheckpointSource, name: str) -> None:
    """Require the statistics that embeddings were normalized with, unless the first line says that they were not."""
    said = {}
    for place in (header, settings, settings.get("data")):
        if isinstance(place, Mapping):
            said |= {key: place[key] for key in ("scale_mean", "scale_norm") if key in place}
    shown = ", ".join(f"{key}={value}" for key, value in said.items()) or "neither"
    why = f"saev trains on (x - mean) / scale unless scale_mean and scale_norm are off, and its first line has {shown}"
    mean, scale = (said.get(key) is not False for key in ("scale_mean", "scale_norm"))
    require_statistics(source, name, why, mean, scale)


def _subtracts_bias(schema: int | None, bias: torch.Tensor, source: CheckpointSource) -> bool:
    """Whether b_dec is subtracted before encoding."""
    if schema is None and bias.any():
        source.notes.append(
            "Written before saev had schemas: b_dec is subtracted before encoding, as in saev 0.1.0, which wrote such "
            "files. Later versions load them without doing that, and reconstruct worse."
        )
    if schema == 1 and bias.any():
        source.notes.append(
            "Written with schema 1, under which saev at first subtracted b_dec before encoding and later did not; it "
            "is not subtracted here, as in today's saev. If it reconstructs badly, it is of the first kind."
        )
    return schema is None


def _activation(
    header: Settings, settings: Settings, tensors: Mapping[str, torch.Tensor], source: CheckpointSource
) -> tuple[dict[str, Any], float | None]:
    """Fields of MSAEConfig, and the threshold of batch top-k."""
    schema, kind, params = header.get("schema"), "Relu", settings
    if schema == 1 and header.word("cls") in _ACTIVATIONS:
        kind = header["cls"]
    elif schema is not None and (schema > 1 or "activation" in settings):
        activation = settings.inner("activation")
        kind, params = activation.choice("cls", _ACTIVATIONS), activation.inner("params")
    if kind == "Relu":
        return {"activation": "relu"}, None
    k = min(params.k("top_k", default=32), tensors["W_enc"].shape[1])
    if kind == "BatchTopK":
        if _THRESHOLD in tensors:
            threshold = finite_number(tensors[_THRESHOLD], f"{_THRESHOLD} of {source.name}")
            return {"activation": "batch_topk", "k": k}, reached(threshold) if threshold > 0 else 0.0
        if schema != 2:
            raise ValueError(
                f"{source.name} keeps the {k} largest activations of a whole batch (BatchTopK), so its codes depend "
                f"on what else is in the batch, and it has no {_THRESHOLD} to replace that: it cannot be converted"
            )
        source.notes.append(
            "Its BatchTopK is that of schema 2, which keeps the k largest of each embedding: plain top-k."
        )
    source.notes.append(
        "saev's top-k also keeps negative pre-activations if fewer than k are positive; those are 0 here."
    )
    return {"activation": "topk", "k": k}, None
