"""Edit what a model sees: scale, set or shift latents of its embeddings during the forward pass."""

from __future__ import annotations

import math
import operator
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from .._utils.checks import check_several

if TYPE_CHECKING:
    from ..backbones.hook_points import Site
    from ..model.modeling_msae import MSAEModel
    from . import ConceptTable

MODES = ("scale", "set", "add")
_NUMBER = re.compile(r"(?:#|latent[: ])?\s*([0-9]{1,9})")
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class LatentEdit:
    """A change of some latents of a code."""

    latents: tuple[int, ...]  # the latents to change (m,), each once
    values: tuple[float, ...]  # one value for each latent (m,)
    # "scale" multiplies a latent's activation by its value, "set" replaces it, "add" adds the value.
    mode: str = "scale"
    # Whether to keep what the MSAE does not reconstruct: the edited embedding is then x + decode(z') - decode(z), and
    # otherwise decode(z').
    keep_residual: bool = True

    @classmethod
    def of(
        cls,
        edits: Mapping[int | str, float],
        num_latents: int,
        concepts: ConceptTable | None = None,
        mode: str = "scale",
        keep_residual: bool = True,
    ) -> LatentEdit:
        """Make an edit from values by latent or name, as `latent_of` reads them."""
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; choose one of {', '.join(MODES)}")
        pairs = pairs_of("edits", edits)
        if not pairs:
            raise ValueError("there is nothing to edit: pass values by latent or name")
        found = values_of_latents(pairs, num_latents, concepts)
        return cls(tuple(found), tuple(found.values()), mode, keep_residual)

    def apply(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes (..., n) with the edit applied."""
        chosen = torch.tensor(self.latents, device=codes.device)
        values = torch.tensor(self.values, dtype=codes.dtype, device=codes.device)
        before = codes[..., chosen]
        edited = codes.clone()
        changes = {"scale": before * values, "set": values.expand_as(before), "add": before + values}
        edited[..., chosen] = changes[self.mode]
        return edited


def edit_embeddings(
    msae: MSAEModel, embeddings: torch.Tensor, edits: Sequence[LatentEdit], k: int | None = None
) -> torch.Tensor | None:
    """Apply edits to the codes of raw embeddings (..., d) of any floating point type, one after the other.

    If one of the edits does not keep the residual, it is dropped for all. Returns None if nothing changes. Unchanged
    rows are identical to the last bit. Gradients treat what is added as a constant; without the residual there are
    none.
    """
    with torch.no_grad():
        codes = msae.encode(embeddings.to(torch.promote_types(embeddings.dtype, msae.encoder.dtype)), k)
        edited = codes
        for edit in edits:
            edited = edit.apply(edited)
        if not all(edit.keep_residual for edit in edits):
            return msae.decode(edited).to(embeddings.dtype)
        # In decode(z') - decode(z) only the directions of the edited latents remain.
        touched = torch.tensor(sorted({latent for edit in edits for latent in edit.latents}), device=codes.device)
        change = edited[..., touched] - codes[..., touched]
        changed = (change != 0).any(dim=-1, keepdim=True)
        if not changed.any():
            return None
        moved = (change @ msae.dictionary[touched].to(change.dtype)) / msae.input_scale.to(change.dtype)
    return torch.where(changed, (embeddings + moved).to(embeddings.dtype), embeddings)


def number_of(key: str) -> int | None:
    """Return the number that "#3", "latent:3", "latent 3" or "3" says; None for any other text."""
    found = _NUMBER.fullmatch(key)
    return int(found[1]) if found else None


def pairs_of(what: str, values: Mapping[int | str, float]) -> list[tuple[int | str, float]]:
    """Return the pairs of a mapping, or a pandas Series, from latents or names to values; refuse anything else."""
    if not hasattr(values, "items"):
        raise ValueError(f"{what} must map latents or names to values, as {{'red': 0.5}}; got {values!r:.100}")
    return list(values.items())


def values_of_latents(
    values: Iterable[tuple[int | str, float]], num_latents: int, concepts: ConceptTable | None
) -> dict[int, float]:
    """Return values by latent, from pairs of what `latent_of` reads and a value."""
    found: dict[int, float] = {}
    for key, value in values:
        latent = latent_of(key, num_latents, concepts)
        if latent in found:
            raise ValueError(f"latent {latent} is given twice, the second time as {key!r}")
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):  # of None, a text, or a tensor of several numbers; refused below
            number = math.nan
        if not abs(number) <= _LARGEST:  # false for NaN as well
            raise ValueError(f"the value for {key!r} is {value!r}, but must be a finite float32 number")
        found[latent] = number
    return found


def latent_of(key: int | str, num_latents: int, concepts: ConceptTable | None) -> int:
    """Return the latent that a number or a text means: the one rule for Python, commands and the explorer.

    A text is first of all a name, and means the best latent that has it. Otherwise it may say the number of a
    latent, as `number_of` reads it. So with a concept named "3", "3" is that concept, and "#3" is latent 3.
    """
    if isinstance(key, str):
        named = concepts is not None and bool((concepts.frame["name"] == key).any())
        latent = None if named else number_of(key)
        if latent is None:
            if concepts is None:
                raise ValueError(f"{key!r} is a name, but these latents have none: use numbers, as latent:3")
            latent = concepts.latent_of(key)
    else:
        try:
            latent = -1 if isinstance(key, bool) else operator.index(key)  # numpy's and torch's integers too
        except TypeError:  # refused below
            latent = -1
    if not 0 <= latent < num_latents:
        raise ValueError(f"latents are numbers from 0 to {num_latents - 1}, or names; got {key!r}")
    return latent


def latents_of(keys: Iterable[int | str], num_latents: int, concepts: ConceptTable | None) -> np.ndarray:
    """Return the latents, ascending and each once, that several numbers or names mean as `latent_of` reads them."""
    check_several("latents", indices=keys)
    keys = keys.tolist() if hasattr(keys, "tolist") else keys  # torch's masks of True and False would be numbers
    return np.unique([latent_of(key, num_latents, concepts) for key in keys]).astype(np.int64)


@dataclass(eq=False)
class _Active:
    """An edit that applies until it is over. It may end in another context than it began in, so both check `over`."""

    editor: Editor
    edit: LatentEdit
    over: bool = False


_ACTIVE: ContextVar[tuple[_Active, ...]] = ContextVar("hf_msae_edits", default=())
"""The edits of this thread or task, outermost first. Other threads and tasks do not see them."""

_LOCK = threading.Lock()
_HOOKS: WeakKeyDictionary[nn.Module, _Hook] = WeakKeyDictionary()
"""One hook per edited module, so that edits apply in the order of their contexts, whoever made them."""


@dataclass
class _Hook:
    remove: ExitStack
    users: int = 0


@contextmanager
def _hooked(site: Site) -> Iterator[None]:
    """Keep the hook of a module as long as anyone edits there."""
    with _LOCK:
        if site.module not in _HOOKS:
            hook = _HOOKS[site.module] = _Hook(ExitStack())
            hook.remove.enter_context(site.hooked(lambda embeddings: _edit_all(site.module, embeddings)))
        hook = _HOOKS[site.module]
        hook.users += 1
    try:
        yield
    finally:
        with _LOCK:
            hook.users -= 1
            if hook.users == 0:
                del _HOOKS[site.module]
                hook.remove.close()


def _edit_all(module: nn.Module, embeddings: torch.Tensor) -> torch.Tensor | None:
    here = [active for active in _ACTIVE.get() if active.editor.site.module is module and not active.over]
    changed = None
    for editor, group in groupby(here, key=lambda active: active.editor):
        edits = [active.edit for active in group]
        now = edit_embeddings(editor.msae, embeddings if changed is None else changed, edits)
        changed = changed if now is None else now
    return changed


def is_edited(model: nn.Module) -> bool:
    """Whether edits of this thread or task apply to a module of this model."""
    edited = {active.editor.site.module for active in _ACTIVE.get() if not active.over}
    return not edited.isdisjoint(model.modules())


@dataclass(eq=False)
class Editor:
    """Edits the output of a module, only in threads and tasks that ask for it."""

    site: Site
    msae: MSAEModel

    @contextmanager
    def editing(self, edit: LatentEdit) -> Iterator[None]:
        """Apply `edit` in every forward pass of this thread or task, after the edits it is nested in."""
        active = _Active(self, edit)
        with _hooked(self.site):
            try:
                _ACTIVE.set((*_ACTIVE.get(), active))
                yield
            finally:
                active.over = True
                _ACTIVE.set(tuple(each for each in _ACTIVE.get() if not each.over))
