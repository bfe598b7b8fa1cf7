"""Changing what a model sees: some latents of its embeddings scaled, set or moved, during its forward pass."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import nn

if TYPE_CHECKING:
    from ..backbones.hook_points import Site
    from ..model.modeling_msae import MSAEModel
    from . import ConceptTable

MODES = ("scale", "set", "add")
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class LatentEdit:
    """What is done to some latents of a code.

    Attributes:
        latents: their numbers, (m,), each once.
        values: one for each, (m,).
        mode: "scale" multiplies a latent's activation by its value, "set" replaces it, "add" adds to it.
        keep_residual: whether what the MSAE does not reconstruct stays: x + decode(z') - decode(z). Otherwise the
            edited embedding is decode(z').
    """

    latents: tuple[int, ...]
    values: tuple[float, ...]
    mode: str = "scale"
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
        """Args:
            edits: latent, or name of one, -> value. Of several latents of one name the most similar one is meant.
            num_latents: of the MSAE.
            concepts: the names.

        Raises:
            ValueError: an unknown mode, name or latent; a value that is no finite number; or a latent named twice.
        """
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; choose one of {', '.join(MODES)}")
        if not edits:
            raise ValueError("there is nothing to edit: give latents, or their names, and values")
        found: dict[int, float] = {}
        for key, value in edits.items():
            latent = latent_of(key, num_latents, concepts)
            if latent in found:
                raise ValueError(f"latent {latent} is edited twice, the second time as {key!r}")
            value = float(value)
            if not abs(value) <= _LARGEST:  # nor NaN
                raise ValueError(f"the value for {key!r} is {value}, but has to be a finite number in float32")
            found[latent] = value
        return cls(tuple(found), tuple(found.values()), mode, keep_residual)

    def apply(self, codes: torch.Tensor) -> torch.Tensor:
        """The codes (..., n) with the edit."""
        chosen = torch.tensor(self.latents, device=codes.device)
        values = torch.tensor(self.values, dtype=codes.dtype, device=codes.device)
        before = codes[..., chosen]
        edited = codes.clone()
        edited[..., chosen] = {"scale": before * values, "set": values.expand_as(before), "add": before + values}[
            self.mode
        ]
        return edited


def edit_embeddings(msae: MSAEModel, embeddings: torch.Tensor, edits: Sequence[LatentEdit]) -> torch.Tensor | None:
    """Embeddings whose code has been through all edits, one after the other.

    Args:
        msae: of these embeddings.
        embeddings: raw, (..., d), in any floating point type.
        edits: where one of them does not keep the residual, it is gone.

    Returns:
        Like `embeddings`; None where the edits change nothing at all. Rows that they do not change stay as they are,
        to the last bit. Gradients pass as if what is added were a constant; without the residual there are none.
    """
    with torch.no_grad():
        codes = msae.encode(embeddings.to(torch.promote_types(embeddings.dtype, msae.encoder.dtype)))
        edited = codes
        for edit in edits:
            edited = edit.apply(edited)
        if not all(edit.keep_residual for edit in edits):
            return msae.decode(edited).to(embeddings.dtype)
        # decode(z') - decode(z), of which only the edited latents' directions are left.
        touched = torch.tensor(sorted({latent for edit in edits for latent in edit.latents}), device=codes.device)
        change = edited[..., touched] - codes[..., touched]
        changed = (change != 0).any(dim=-1, keepdim=True)
        if not changed.any():
            return None
        moved = (change @ msae.dictionary[touched].to(change.dtype)) / msae.input_scale.to(change.dtype)
    return torch.where(changed, (embeddings + moved).to(embeddings.dtype), embeddings)


def latent_of(key: int | str, num_latents: int, concepts: ConceptTable | None) -> int:
    """The number of a latent that is named by its number or, best one of several, by its name.

    Raises:
        ValueError: there is none.
    """
    if isinstance(key, str):
        if concepts is None:
            raise ValueError(f"{key!r} is a name, but this model's latents have none: use their numbers, or name them")
        latent = concepts.latent_of(key)
    else:
        try:
            latent = -1 if isinstance(key, bool) else operator.index(key)  # numpy's and torch's integers too
        except TypeError:
            latent = -1
    if not 0 <= latent < num_latents:
        raise ValueError(f"latents are numbers from 0 to {num_latents - 1}, or names; got {key!r}")
    return latent


@dataclass(eq=False)
class _Active:
    """An edit in force. Whoever ends it may be in another context than who began it: `over` tells both."""

    editor: Editor
    edit: LatentEdit
    over: bool = False


_ACTIVE: ContextVar[tuple[_Active, ...]] = ContextVar("hf_msae_edits", default=())
"""The edits of this thread or task, outermost first: what one user edits, another does not see."""

_LOCK = threading.Lock()
_HOOKS: WeakKeyDictionary[nn.Module, _Hook] = WeakKeyDictionary()
"""One hook for each module that is edited: the order of edits is that of their contexts, whoever else edits it."""


class _Hook:
    def __init__(self, site: Site) -> None:
        self.users = 0
        self.hooked = site.hooked(lambda embeddings: _edit_all(site.module, embeddings))


def _edit_all(module: nn.Module, embeddings: torch.Tensor) -> torch.Tensor | None:
    here = [active for active in _ACTIVE.get() if active.editor.site.module is module and not active.over]
    changed = None
    for editor, group in groupby(here, key=lambda active: active.editor):
        edits = [active.edit for active in group]
        now = edit_embeddings(editor.msae, embeddings if changed is None else changed, edits)
        changed = changed if now is None else now
    return changed


@dataclass(eq=False)
class Editor:
    """Edits what leaves a module, in the threads and tasks that have asked for it.

    Attributes:
        site: the module, and which of its output is meant.
        msae: of the embeddings there.
    """

    site: Site
    msae: MSAEModel

    @contextmanager
    def editing(self, edit: LatentEdit) -> Iterator[None]:
        """Apply `edit` in every forward pass of this thread or task; after the edits that it is nested in."""
        active = _Active(self, edit)
        _use_hook(self.site)
        try:
            _ACTIVE.set((*_ACTIVE.get(), active))
            yield
        finally:
            active.over = True
            _ACTIVE.set(tuple(each for each in _ACTIVE.get() if not each.over))
            _leave_hook(self.site)


def _use_hook(site: Site) -> None:
    with _LOCK:
        hook = _HOOKS.get(site.module)
        if hook is None:
            hook = _HOOKS[site.module] = _Hook(site)
            hook.hooked.__enter__()
        hook.users += 1


def _leave_hook(site: Site) -> None:
    with _LOCK:
        hook = _HOOKS[site.module]
        hook.users -= 1
        if hook.users == 0:
            del _HOOKS[site.module]
            hook.hooked.__exit__(None, None, None)
