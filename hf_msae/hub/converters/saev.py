"""saev (github.com/OSU-NLP-Group/saev): `sae.pt`, a line of JSON and then a file of torch.save.

W_enc (d, n), b_enc (n,), W_dec (n, d), b_dec (d,), and possibly activation.threshold. The line is

    no schema    the settings alone: d_vit, exp_factor, ...; ReLU
    schema 1     {"schema", "cfg", "cls", ...}: cls is the activation, or "SparseAutoencoderConfig"
    schema 2-5   {"schema", "cfg", "commit", "lib"}: cfg["activation"] is {"cls", "params"}

What is computed changed over time, and not always with the schema. Without one, b_dec was subtracted before encoding
(saev 0.1.0); from schema 2 on it is not. Today's saev never subtracts it, not even for files that were trained with
it. Under schema 1 there were both, and nothing in a file tells which.

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
from .places import place_of
from .reading import Settings, finite_number, reached, state_dict, the_one
from .source import CheckpointSource, read_torch
from .statistics import require_statistics

_TENSORS = {"W_enc": "d n", "b_enc": "n", "W_dec": "n d", "b_dec": "d"}
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
    if not line.startswith(b"{"):
        return False
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return "d_vit" in header or {"schema", "cfg"} <= set(header)


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read a file of saev's; see `read_checkpoint` for what is raised."""
    file = the_one(source.matching("*.pt"), source.name, ".pt file")
    name = source.full_name(file)
    with open(source.path(file), "rb") as opened:
        header = _header(opened.readline(_LONGEST_LINE), name)
        content = read_torch(io.BytesIO(opened.read()), name)
    schema = header.get("schema")
    settings = header if schema is None else header.inner("cfg")
    width = "d_model" if "d_model" in settings else "d_vit"
    sizes = settings.sizes(width, "d_sae", "exp_factor")
    tensors, _ = state_dict(content, name, _TENSORS, {_THRESHOLD: ""}, **sizes)
    notes: list[str] = []
    config, threshold = _activation(header, settings, tensors, overrides, name, notes)
    if threshold is None and _THRESHOLD in tensors:
        raise ValueError(f"{name} also has {_THRESHOLD}, which the activation in its first line does not use")
    place = place_of(None, None, overrides, name, known="tokens of an image encoder")
    _require_statistics(header, settings, overrides, name)
    bias = tensors["b_dec"]
    return ForeignCheckpoint(
        format="saev",
        encoder=tensors["W_enc"],
        decoder=tensors["W_dec"],
        latent_bias=tensors["b_enc"],
        input_bias=bias if _subtracts_bias(schema, bias, notes) else None,
        output_bias=bias,
        threshold=threshold,
        config={**config, **place},
        notes=notes,
    )


def _header(line: bytes, name: str) -> Settings:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} does not begin with a line of JSON, as files of saev do") from error
    if not isinstance(header, dict):
        raise ValueError(f"{name} begins with {type(header).__name__}, where files of saev have a mapping")
    schema = header.get("schema")
    if isinstance(schema, bool) or not isinstance(schema, (int, type(None))) or schema not in _SCHEMAS:
        raise ValueError(f"{name} has schema {schema!r} of saev; hf_msae knows those up to {_SCHEMAS[-1]}")
    if schema is not None and not isinstance(header.get("cfg"), dict):
        raise ValueError(f"the first line of {name} has no cfg")
    return Settings(header, f"the first line of {name}")


def _require_statistics(header: Settings, settings: Settings, overrides: Mapping[str, Any], name: str) -> None:
    """Require the statistics that embeddings were normalized with, unless the first line says that they were not."""
    said = {}
    for place in (header, settings, settings.get("data")):
        if isinstance(place, Mapping):
            said |= {key: place[key] for key in ("scale_mean", "scale_norm") if key in place}
    needed = {key: said.get(key) is not False for key in ("scale_mean", "scale_norm")}
    shown = ", ".join(f"{key}={value}" for key, value in said.items()) or "neither"
    why = f"saev trains on (x - mean) / scale unless {' and '.join(needed)} are off, and its first line has {shown}"
    require_statistics(overrides, name, why, mean=needed["scale_mean"], scale=needed["scale_norm"])


def _subtracts_bias(schema: int | None, bias: torch.Tensor, notes: list[str]) -> bool:
    """Whether b_dec is subtracted before encoding."""
    if not bias.any():
        return False
    if schema is None:
        notes.append(
            "Written before saev had schemas: b_dec is subtracted before encoding, as in saev 0.1.0, which wrote such "
            "files. Later versions load them without doing that, and reconstruct worse."
        )
    elif schema == 1:
        notes.append(
            "Written with schema 1, under which saev at first subtracted b_dec before encoding and later did not; it "
            "is not subtracted here, as in today's saev. If it reconstructs badly, it is of the first kind."
        )
    return schema is None


def _activation(
    header: Settings,
    settings: Settings,
    tensors: Mapping[str, torch.Tensor],
    overrides: Mapping[str, Any],
    name: str,
    notes: list[str],
) -> tuple[dict[str, Any], float | None]:
    """Fields of MSAEConfig, and the threshold of batch top-k."""
    schema, kind, params = header.get("schema"), "Relu", settings
    said = header.word("cls") if schema == 1 else None
    if said in _ACTIVATIONS:
        kind = said
    elif schema is not None and (schema > 1 or "activation" in settings):
        activation = settings.get("activation")
        if not isinstance(activation, dict) or "cls" not in activation:
            raise ValueError(f"activation in the first line of {name} is {activation!r}, expected cls and params")
        activation = settings.inner("activation")
        kind, params = activation.word("cls"), activation.inner("params")
    if kind not in _ACTIVATIONS:
        raise ValueError(f"{name} has activation {kind!r}; hf_msae reads {', '.join(_ACTIVATIONS)}")
    if kind == "Relu":
        return {"activation": "relu"}, None
    k = min(params.k("top_k", overrides, default=32), tensors["W_enc"].shape[1])
    if kind == "BatchTopK":
        if _THRESHOLD in tensors:
            threshold = finite_number(tensors[_THRESHOLD], f"{_THRESHOLD} of {name}")
            return {"activation": "batch_topk", "k": k}, reached(threshold) if threshold > 0 else 0.0
        if schema == 1:
            raise ValueError(
                f"{name} keeps the {k} largest activations of a whole batch, so its codes depend on what else is in "
                "the batch, and holds no threshold to replace that: it cannot be converted"
            )
        if schema > 2:
            raise ValueError(f"{name} says BatchTopK, but holds no {_THRESHOLD}, without which it cannot encode")
        notes.append("Its BatchTopK is that of schema 2, which keeps the k largest of each embedding: plain top-k.")
    notes.append("saev's top-k also keeps negative pre-activations if fewer than k are positive; those are 0 here.")
    return {"activation": "topk", "k": k}, None
