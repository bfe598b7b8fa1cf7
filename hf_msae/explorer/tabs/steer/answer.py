"""Zero-shot labels of a picture, before and after some of its concepts are changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ....bias.interventions import STRONG
from ....concepts.editing import LatentEdit, edit_embeddings
from ...components.concepts import Change, chosen_slots
from ...explorer import Explorer
from ...inputs import VisitorError, read_choice, read_number, read_text

MIN_LABELS, MAX_LABELS, MAX_LABEL = 2, 10, 100
SLOTS = 4
MULTIPLY, ADD = "multiply", "add"
HOW = (MULTIPLY, ADD)
MOST = 3.0
_TRIED, _EXAMPLES = 20, 5
"""Numbers of pictures among which an example is looked for, and of its labels."""
_SEPARATOR = r"[,;\n]"
AS_IT_IS, AS_NAMED = "as it is", "as concepts are named"
PROMPTS: dict[str, tuple[str, ...]] = {
    AS_IT_IS: ("{}",),
    "a photo of a ...": ("a photo of a {}.",),
    "a picture of a ...": ("a picture of a {}",),
}


@dataclass(frozen=True)
class Edit:
    """What a visitor wants done to a concept."""

    name: str
    latent: int
    how: str  # `MULTIPLY` multiplies its activation by `amount`; `ADD` adds `amount` times a strong activation
    amount: float  # a number from 0 to `MOST`


@dataclass(frozen=True)
class Steered:
    """Probabilities of labels, which add up to 1."""

    labels: tuple[str, ...]  # the labels, in the visitor's order
    before: tuple[float, ...]  # their probabilities for the picture as it is
    after: tuple[float, ...]  # their probabilities for the edited embedding
    changes: tuple[Change, ...]  # what was done to each concept
    similarity: float  # cosine of the embedding and the edited one

    @property
    def changed(self) -> bool:
        """Whether any activation has changed."""
        return any(each.before != each.after for each in self.changes)

    @property
    def likeliest(self) -> tuple[int, int]:
        """The places of the likeliest label before and after."""
        return int(np.argmax(self.before)), int(np.argmax(self.after))


def read_labels(text: object) -> tuple[str, ...]:
    """Read `MIN_LABELS` to `MAX_LABELS` distinct labels, one per line or separated by commas."""
    if text is not None and not isinstance(text, str):
        raise VisitorError("Write the labels as words.")
    text = text or ""
    if len(text) > MAX_LABELS * (MAX_LABEL + 2):
        raise VisitorError(f"The labels have {len(text):,} characters: write at most {MAX_LABELS} short ones.")
    labels = tuple(read_text(part, "label") for part in re.split(_SEPARATOR, text) if part.replace("\0", " ").strip())
    if not MIN_LABELS <= len(labels) <= MAX_LABELS:
        raise VisitorError(
            f"Write {MIN_LABELS} to {MAX_LABELS} labels separated by commas, for example “a star, a circle”; "
            f"there {'is' if len(labels) == 1 else 'are'} {len(labels)}."
        )
    if any(len(label) > MAX_LABEL for label in labels):
        raise VisitorError(f"A label has more than {MAX_LABEL} characters: make it shorter.")
    if len({label.casefold() for label in labels}) < len(labels):
        raise VisitorError("Two labels are the same: write each label once.")
    return labels


def prompts(explorer: Explorer) -> dict[str, tuple[str, ...]]:
    """The ways to phrase a label, by name: templates whose embeddings are averaged."""
    concepts = explorer.model.concepts
    own = tuple(concepts.provenance.get("templates") or ()) if concepts is not None else ()
    return PROMPTS | ({AS_NAMED: own} if own and own not in PROMPTS.values() else {})


def read_edits(explorer: Explorer, slots: Sequence[tuple[object, object, object]]) -> tuple[Edit, ...]:
    """Read concepts, how to change them, and amounts, leaving out slots without a concept."""
    return tuple(
        Edit(
            name,
            latent,
            read_choice(how, HOW, "way to change a concept"),
            read_number(amount, 0.0, MOST, "The amount"),
        )
        for name, latent, (how, amount) in chosen_slots(explorer, slots)
    )


def strong_activation(explorer: Explorer, latent: int) -> float:
    """What `bias_report` calls strong: the 90th percentile of the positive activations, or 0 if there are none."""
    active = explorer.codes[:, latent]
    active = active[active > 0]
    return float(np.quantile(active, STRONG)) if len(active) else 0.0


@torch.no_grad()
def steer(
    explorer: Explorer,
    embedding: torch.Tensor,
    labels: Sequence[str],
    edits: Sequence[Edit] = (),
    prompt: object = AS_IT_IS,
) -> Steered:
    """Compute the probabilities of labels for a raw embedding (d,), before and after an edit.

    What the MSAE does not reconstruct stays: the edited embedding is x + decode(z') - decode(z). `labels` and `edits`
    are what `read_labels` and `read_edits` give, and `prompt` is one of `prompts`.
    """
    before = embedding.to(explorer.msae.device).float()[None]
    changes = _changes(explorer, embedding, edits)
    after = None
    if changes:
        wanted = {each.latent: each.after for each in changes}
        edit = LatentEdit.of(wanted, explorer.msae.config.num_latents, mode="set")
        after = edit_embeddings(explorer.msae, before, [edit])
    after = before if after is None else after
    first, second = probabilities(explorer, [before[0], after[0]], labels, prompt)
    similarity = 1.0 if after is before else float(torch.cosine_similarity(before.double(), after.double())[0])
    return Steered(tuple(labels), first, second, changes, similarity)


def probabilities(
    explorer: Explorer, embeddings: Sequence[torch.Tensor], labels: Sequence[str], prompt: object = AS_IT_IS
) -> list[tuple[float, ...]]:
    """Compute the probabilities of labels for raw embeddings (d,), each by itself."""
    choices = prompts(explorer)
    classifier = explorer.zero_shot(labels, choices[read_choice(prompt, choices, "way to phrase a label")])
    return [tuple(classifier.logits(each[None].cpu()).softmax(dim=1)[0].tolist()) for each in embeddings]


def _changes(explorer: Explorer, embedding: torch.Tensor, edits: Sequence[Edit]) -> tuple[Change, ...]:
    code = explorer.code(embedding)
    found = []
    for each in edits:
        before = float(code[each.latent])
        if each.how == MULTIPLY:
            after = before * each.amount
        elif strong := strong_activation(explorer, each.latent):
            after = before + each.amount * strong
        else:
            raise VisitorError(f"No picture of the collection shows “{each.name}”: choose another concept to add.")
        found.append(Change(each.name, each.latent, explorer.label(each.latent).validated, before, after))
    return tuple(found)


def concepts_in(explorer: Explorer, embedding: torch.Tensor) -> dict[str, float]:
    """The activations of the concepts that an embedding has, by name, strongest first."""
    return _active(explorer, explorer.code(embedding))


def _active(explorer: Explorer, code: torch.Tensor | np.ndarray) -> dict[str, float]:
    found = {name: float(code[each.latent]) for name, each in explorer.concepts.items() if code[each.latent] > 0}
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def example_labels(explorer: Explorer, row: int) -> str:
    """Labels to begin with: the two strongest concepts of a picture, and what other pictures show that it does not.

    "" if there are fewer than `MIN_LABELS`.
    """
    if explorer.model.concepts is None:
        return ""
    there = _active(explorer, explorer.codes[row])
    elsewhere = (next(iter(_active(explorer, code)), None) for code in explorer.codes[:_TRIED])
    names = [*list(there)[:2], *(name for name in elsewhere if name is not None and name not in there)]
    names = [_as_label(name) for name in names if not name.startswith("not ")]
    usable = (name for name in names if len(name) <= MAX_LABEL and not re.search(_SEPARATOR, name))
    labels = list({name.casefold(): name for name in usable}.values())[:_EXAMPLES]
    return ", ".join(labels) if len(labels) >= MIN_LABELS else ""


def _as_label(name: str) -> str:
    """The words of a name that comes from a column, such as "Blond_Hair" or "animal: cat"."""
    return name.rpartition(": ")[2].replace("_", " ")


def example(explorer: Explorer, prompt: object = AS_IT_IS) -> tuple[int, str, str] | None:
    """Row, labels and the name of a concept without which the model gives a picture of the collection another label.

    If no edit of the first pictures changes their label, those of the first picture; None if no picture has a concept,
    the labels cannot be used, or the backbone has no text tower.
    """
    first = None
    try:
        for row in range(min(_TRIED, len(explorer.embeddings))):
            embedding, labels = explorer.embeddings[row], example_labels(explorer, row)
            name = next(iter(concepts_in(explorer, embedding)), None)
            if name is None or not labels:
                continue
            names = read_labels(labels)
            first = first or (row, labels, name)
            found = steer(explorer, embedding, names, [Edit(name, explorer.latent_of(name), MULTIPLY, 0.0)], prompt)
            before, after = found.likeliest
            if before != after and _as_label(name) == names[before]:
                return row, labels, name
    except VisitorError:  # the labels cannot be used, or the backbone reads no texts
        return None
    return first
