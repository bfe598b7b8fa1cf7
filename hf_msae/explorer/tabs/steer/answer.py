"""Zero-shot labels of a picture, before and after some of its concepts are changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ....bias.analysis import STRONG
from ....concepts.editing import LatentEdit, edit_embeddings
from ...components.concepts import Change
from ...inputs import VisitorError, read_choice, read_number, read_text

if TYPE_CHECKING:
    from ...explorer import Explorer

MIN_LABELS, MAX_LABELS, MAX_LABEL = 2, 10, 100
SLOTS = 4
MULTIPLY, ADD = "multiply", "add"
HOW = (MULTIPLY, ADD)
MOST = 3.0
_TRIED = 20
"""Pictures among which one is looked for to begin with."""
AS_IT_IS, AS_NAMED = "as it is", "as concepts are named"
PROMPTS: dict[str, tuple[str, ...]] = {
    AS_IT_IS: ("{}",),
    "a photo of a ...": ("a photo of a {}.",),
    "a picture of a ...": ("a picture of a {}",),
}


@dataclass(frozen=True)
class Edit:
    """What a visitor wants done to a concept.

    Attributes:
        name, latent: which.
        how: `MULTIPLY`, its activation by the amount; or `ADD`, so many times as much as strong ones have.
        amount: 0 to `MOST`.
    """

    name: str
    latent: int
    how: str
    amount: float


@dataclass(frozen=True)
class Steered:
    """Probabilities of labels, which add up to 1.

    Attributes:
        labels: in the order in which they were given.
        before: of the picture as it is.
        after: of the edited embedding.
        changes: of the concepts.
        similarity: cosine of the embedding and the edited one.
    """

    labels: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    changes: tuple[Change, ...]
    similarity: float

    @property
    def changed(self) -> bool:
        """Whether any activation is another than before."""
        return any(each.before != each.after for each in self.changes)


def read_labels(text: object) -> tuple[str, ...]:
    """The labels of a text: one a line, or with commas between them.

    Raises:
        VisitorError: there are too few or too many, one is too long, or stands twice.
    """
    if text is not None and not isinstance(text, str):
        raise VisitorError("The labels have to be words.")
    text = text or ""
    if len(text) > MAX_LABELS * (MAX_LABEL + 2):
        raise VisitorError(f"The labels have {len(text):,} characters: at most {MAX_LABELS} short ones can be read.")
    labels = tuple(read_text(part, "label") for part in re.split(r"[,;\n]", text) if part.replace("\0", " ").strip())
    if not MIN_LABELS <= len(labels) <= MAX_LABELS:
        raise VisitorError(
            f"Write {MIN_LABELS} to {MAX_LABELS} labels with commas between them, for example “a star, a circle”; "
            f"there {'is' if len(labels) == 1 else 'are'} {len(labels)}."
        )
    if any(len(label) > MAX_LABEL for label in labels):
        raise VisitorError(f"A label has more than {MAX_LABEL} characters: make it shorter.")
    if len({label.casefold() for label in labels}) < len(labels):
        raise VisitorError("A label stands twice: labels have to differ.")
    return labels


def prompts(explorer: Explorer) -> dict[str, tuple[str, ...]]:
    """Ways to show a label to the backbone, by name."""
    concepts = explorer.model.concepts
    own = tuple(concepts.provenance.get("templates") or ()) if concepts is not None else ()
    return PROMPTS | ({AS_NAMED: own} if own and own not in PROMPTS.values() else {})


def read_edits(explorer: Explorer, slots: Sequence[tuple[object, object, object]]) -> tuple[Edit, ...]:
    """Concepts, what is done to them, and amounts; slots without a concept are left out.

    Raises:
        VisitorError: an unknown concept, one chosen twice, or an amount that is none.
    """
    found: list[Edit] = []
    for name, how, amount in slots:
        if name is None or name == "":
            continue
        latent = explorer.latent_of(name)
        if latent in [each.latent for each in found]:
            raise VisitorError("A concept is chosen twice: set one of the two back to none.")
        amount = read_number(amount, 0.0, MOST, "The amount")
        found.append(Edit(str(name), latent, read_choice(how, HOW, "way to change a concept"), amount))
    return tuple(found)


def strong_activation(explorer: Explorer, latent: int) -> float:
    """What nine of ten pictures having a concept have no more of, as in `bias_report`; 0 where none has it."""
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
    """The probabilities of labels before and after an edit.

    What the MSAE does not reconstruct stays: the edited embedding is x + decode(z') - decode(z).

    Args:
        embedding: of a picture, raw, (d,).
        labels: as `read_labels` gives them.
        edits: as `read_edits` gives them.
        prompt: one of `prompts`.

    Raises:
        VisitorError: there is no such prompt, a concept that is to be added is in no picture, or the backbone has no
            text tower.
    """
    choices = prompts(explorer)
    classifier = explorer.zero_shot(labels, choices[read_choice(prompt, choices, "way to say a label")])
    before = embedding.to(explorer.msae.device).float()[None]
    after, changes = _edited(explorer, before, edits) if edits else (before, ())
    first, second = (classifier.logits(each.cpu()).softmax(dim=1)[0].tolist() for each in (before, after))
    similarity = 1.0 if after is before else float(torch.cosine_similarity(before.double(), after.double())[0])
    return Steered(tuple(labels), tuple(first), tuple(second), changes, similarity)


def _edited(
    explorer: Explorer, before: torch.Tensor, edits: Sequence[Edit]
) -> tuple[torch.Tensor, tuple[Change, ...]]:
    now = explorer.msae.encode(before)[0].float().cpu()
    wanted = {}
    for each in edits:
        strong = strong_activation(explorer, each.latent) if each.how == ADD else 0.0
        if each.how == ADD and not strong:
            raise VisitorError("No picture of the collection has one of the concepts to add: choose another one.")
        own = float(now[each.latent])
        wanted[each.latent] = own * each.amount if each.how == MULTIPLY else own + each.amount * strong
    edit = LatentEdit.of(wanted, explorer.msae.config.num_latents, mode="set")
    after = edit_embeddings(explorer.msae, before, [edit])
    changes = tuple(
        Change(
            each.name,
            each.latent,
            explorer.label(each.latent).validated,
            float(now[each.latent]),
            wanted[each.latent],
        )
        for each in edits
    )
    return before if after is None else after, changes


def concepts_in(explorer: Explorer, embedding: torch.Tensor) -> list[tuple[str, float]]:
    """The concepts that visitors choose from and an embedding has, strongest first: name and activation."""
    with torch.no_grad():
        code = explorer.msae.encode(embedding[None].to(explorer.msae.device))[0].float().cpu()
    found = [(name, float(code[each.latent])) for name, each in explorer.concepts.items()]
    return sorted(((name, value) for name, value in found if value > 0), key=lambda each: -each[1])


def example_labels(explorer: Explorer) -> str:
    """Labels to begin with: concepts that the collection has columns of, or else those whose names fit best."""
    named = [name for name in explorer.images.column_names if name in explorer.concepts]
    if len(named) < MIN_LABELS:
        best = explorer.labels.validated
        named = list(explorer.concepts) if best is None else best["name"].dropna().drop_duplicates().tolist()
    return ", ".join(str(name) for name in named[:5])


def example_edit(explorer: Explorer, labels: str, prompt: object = AS_IT_IS) -> tuple[int, str] | None:
    """A picture of the collection and a concept without which the model gives another of the labels, to begin with.

    Returns:
        Row and name; where no edit of the first pictures turns the answer, the first row and its strongest concept;
        None where no picture has one, the labels are none, or the backbone has no text tower.
    """
    try:
        names = read_labels(labels)
    except VisitorError:  # names of concepts that are no labels, such as too long ones
        return None
    first = None
    for row in range(min(_TRIED, len(explorer.embeddings))):
        embedding = explorer.embeddings[row]
        there = concepts_in(explorer, embedding)
        if not there:
            continue
        name = there[0][0]
        first = first or (row, name)
        edit = Edit(name, explorer.latent_of(name), MULTIPLY, 0.0)
        try:
            found = steer(explorer, embedding, names, [edit], prompt)
        except VisitorError:
            return None
        likeliest = names[int(np.argmax(found.before))]
        if name in likeliest.split() and likeliest != names[int(np.argmax(found.after))]:
            return row, name
    return first
