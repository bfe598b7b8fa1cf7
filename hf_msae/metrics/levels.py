"""Which levels a model is measured at, and the codes of these levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from ..model.activations import FAMILIES
from ..model.checks import check_tensor
from ..model.fused.compiled_entries import Workspace
from ..model.fused.nested_pass import entries_for
from ..model.nested_topk import soft_capped, top_activations

if TYPE_CHECKING:
    from ..model.configuration_msae import MSAEConfig
    from ..model.modeling_msae import MSAEModel


def own_levels(config: MSAEConfig) -> tuple[list[int], bool]:
    """Return the levels that a model was trained at, ascending, and whether they are prefixes of the dictionary."""
    if config.nesting == "prefix":
        return list(config.nesting_widths), True
    most = FAMILIES[config.activation].full_code(config)["k"]
    return sorted({min(k, most) for k in config.nesting_ks}), False


def describe_levels(config: MSAEConfig) -> str:
    """Say at which levels a model was trained, such as "k = 64, 128, 256" or "the first 32, 64 latents"."""
    sizes, of_dictionary = own_levels(config)
    listed = ", ".join(map(str, sizes))
    if of_dictionary:
        return f"the first {listed} latents of the dictionary"
    if config.nesting == "none":
        return f"one level, the full code ({FAMILIES[config.activation].full_code(config)['keeps']})"
    return f"k = {listed}"


def choose_levels(
    config: MSAEConfig, ks: Sequence[int] | None, widths: Sequence[int] | None
) -> tuple[list[int], bool]:
    """Return the levels to measure, ascending, and whether they are prefixes of the dictionary."""
    if ks is not None and widths is not None:
        raise ValueError(f"ks is {list(ks)} and widths is {list(widths)}: measure one kind of levels at a time")
    if widths is not None and config.nesting != "prefix":
        raise ValueError(
            f'widths is {list(widths)}, but only a model with nesting="prefix" was trained at prefixes of its '
            f"dictionary; this one has {describe_levels(config)}: use ks"
        )
    if ks is None and widths is None:
        return own_levels(config)
    name, letter, given = ("ks", "k", ks) if widths is None else ("widths", "a width", widths)
    sizes = sorted({int(size) for size in given})
    if not sizes:
        raise ValueError(f"{name} is empty: name at least one level to evaluate, or None for the model's own")
    if outside := [size for size in sizes if not 1 <= size <= config.num_latents]:
        raise ValueError(f"{letter} must be from 1 to num_latents={config.num_latents}, got {outside[0]} in {name}")
    return sizes, widths is not None


def level_codes(
    code: torch.Tensor, sizes: list[int], soft_cap: float | None, of_dictionary: bool = False
) -> Iterator[tuple[list[int], torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]]:
    """Yield (levels, their code (B, n), its entries) from one full code (B, n), before the cap, and one ranking.

    Levels that drop nothing come together. Entries are values and indices as `MSAEModel.encode_topk` returns them, or
    None where only the dense code is known. Levels come one at a time, so that at most two dense codes are held in
    memory. `sizes`, ascending, are numbers of the largest activations, or of the first latents (`of_dictionary`).
    """
    if of_dictionary:
        code = soft_capped(code, soft_cap)
        for width in sizes:
            yield [width], torch.cat([code[:, :width], torch.zeros_like(code[:, width:])], dim=1), None
        return
    most_active = int((code > 0).sum(dim=1).max())
    partial = [k for k in sizes if k < most_active]
    if partial:
        values, indices = top_activations(code, max(partial), soft_cap)
        for k in partial:
            entries = values[:, :k], indices[:, :k]
            yield [k], torch.zeros_like(code).scatter_(1, entries[1], entries[0]), entries
    if len(partial) < len(sizes):
        yield sizes[len(partial) :], soft_capped(code, soft_cap), None


@torch.no_grad()
def decoded_levels(
    model: MSAEModel, code: torch.Tensor, sizes: list[int], of_dictionary: bool = False
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Yield (levels, their code (B, n), its reconstruction (B, d) in raw space) as [`level_codes`] does.

    On a CPU, a level of few entries more than the one before it is decoded as that one plus these entries, as in
    training (`hf_msae/model/fused_nested_loss.py`). The tensor that holds the code is used again for the next level.
    """
    dictionary, cap = model.dictionary, model.config.soft_cap
    plain = type(dictionary) in (torch.Tensor, torch.nn.Parameter)  # and not a part of a sharded model
    if of_dictionary or not plain or code.device.type != "cpu" or code.dtype not in (torch.float32, torch.float64):
        for same, latents, pairs in level_codes(code, sizes, cap, of_dictionary):
            yield same, latents, model.decode(latents) if pairs is None else model.decode_topk(*pairs)
        return
    check_tensor(code, "latents", model.config)
    code = code.contiguous()  # which is what the C functions read
    latents = soft_capped(code, cap)
    # Its own memory: what is done between two levels may use that of the training step.
    with closing(entries_for(dictionary.to(code.dtype).contiguous(), len(code), Workspace())) as entries:
        active = entries.rank(code, latents, sizes)
        partial = [k for k in sizes if k < active.max()]
        levels = [[k] for k in partial] + [sizes[len(partial) :]] * (len(partial) < len(sizes))
        few = max(1.0, entries.sparse_share * code.shape[1])
        ends = [0]
        for same in levels:
            if min(same[-1], active.mean()) - ends[-1] > few:
                break
            ends.append(same[-1])
        chosen = torch.empty_like(code)
        decoded = entries.rings(ends).decode() if len(ends) > 1 else []
        for place, same in enumerate(levels):
            kept = entries.top(same[0], chosen) if place < len(partial) else latents
            if place < len(decoded):
                yield same, kept, model.denormalize(decoded[place] + model.pre_bias)
            else:
                yield same, kept, model.decode(kept)
