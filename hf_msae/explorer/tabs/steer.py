"""Steer: zero-shot labels of a picture, before and after some of its concepts are changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...editing import LatentEdit, edit_embeddings
from ..inputs import VisitorError, read_choice, read_number, read_text
from ..picture_input import collection_button, picture_input, read_upload, upload_path
from ..zero_shot import zero_shot

if TYPE_CHECKING:
    from ..app import Loading
    from ..explorer import Explorer

TITLE = "Steer"
MIN_LABELS, MAX_LABELS, MAX_LABEL = 2, 10, 100
SLOTS = 4
MULTIPLY, ADD = "multiply", "add"
HOW = (MULTIPLY, ADD)
MOST = 3.0
USUAL = 0.9
"""The share of the pictures having a concept that have no more of it than its usual strength."""
AS_IT_IS, AS_NAMED = "as it is", "as concepts are named"
PROMPTS: dict[str, tuple[str, ...]] = {
    AS_IT_IS: ("{}",),
    "a photo of a ...": ("a photo of a {}.",),
    "a picture of a ...": ("a picture of a {}",),
}
_SHOWN = 8


@dataclass(frozen=True)
class Edit:
    """What a visitor wants done to a concept.

    Attributes:
        name, latent: which.
        how: `MULTIPLY`, its activation by the amount; or `ADD`, so many times its usual strength.
        amount: 0 to `MOST`.
    """

    name: str
    latent: int
    how: str
    amount: float


@dataclass(frozen=True)
class Change:
    """What became of it.

    Attributes:
        name, latent, validated: which.
        before, after: its activation.
    """

    name: str
    latent: int
    validated: bool
    before: float
    after: float


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


def usual_strength(explorer: Explorer, latent: int) -> float:
    """How active a concept is in pictures that have much of it; 0 where none has any."""
    active = explorer.codes[:, latent]
    active = active[active > 0]
    return float(np.quantile(active, USUAL)) if len(active) else 0.0


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
    classifier = zero_shot(explorer, labels, choices[read_choice(prompt, choices, "way to ask")])
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
        strength = usual_strength(explorer, each.latent) if each.how == ADD else 0.0
        if each.how == ADD and not strength:
            raise VisitorError("No picture of the collection has one of the concepts to add: choose another one.")
        own = float(now[each.latent])
        wanted[each.latent] = own * each.amount if each.how == MULTIPLY else own + each.amount * strength
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


# -- what is shown ---------------------------------------------------------------------------------------------------


def paired_bars(found: Steered) -> str:
    """The probabilities before and after as one table, so that all bars have one scale."""
    lines = []
    for label, before, after in zip(found.labels, found.before, found.after, strict=True):
        lines.append(
            f'<tr><th scope="row">{escape(label)}</th><td>{_bar(before, "muted")}</td>'
            f'<td>{_bar(after, "positive")}</td><td class="msae-change">{_change(after - before)}</td></tr>'
        )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("label", "before", "after", "change"))
    return (
        '<table class="msae-steer"><caption>How likely each label is, 100% in all</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _bar(share: float, kind: str) -> str:
    return (
        f'<span class="msae-track" aria-hidden="true"><span class="msae-bar msae-{kind}" '
        f'style="left:0;width:{share:.2%}"></span></span><span class="msae-value">{share:.1%}</span>'
    )


def _change(change: float) -> str:
    points = f"{100 * change:+.1f}"
    if points in ("+0.0", "-0.0"):
        return "0.0"
    return f"{'▲' if change > 0 else '▼'} {points}"


def summary(found: Steered) -> str:
    """What was done, as HTML."""
    if not found.changes:
        return (
            '<p class="msae-small">Nothing is changed yet. Choose a concept to see what the labels become without it, '
            "or with more of it.</p>"
        )
    items = "".join(
        f"<li>{f'<b>{escape(each.name)}</b>' if each.validated else f'<i>{escape(each.name)}</i> (not validated)'}: "
        f"activation {each.before:.2f} → {each.after:.2f}</li>"
        for each in found.changes
    )
    if found.changed:
        told = (
            "Changed below; all else in the embedding stays, what the concepts do not explain too. The cosine of the "
            f"embedding before and after is {found.similarity:.3f}."
        )
    else:
        told = (
            "This changes nothing: to multiply does nothing to what is not in the picture, nor does multiplying by 1 "
            "or adding 0."
        )
    return f'<div class="msae-small"><p>{told}</p><ul>{items}</ul></div>'


def build(loading: Loading) -> None:
    """The tab."""
    import gradio as gr

    from ..app import answering

    gr.Markdown(
        "Give a picture and some labels: the model says how well each fits. Then change a concept of the picture, and "
        "see what the model makes of it. If the answer changes, the model goes by that concept.",
        elem_classes="msae-lead",
    )
    embedded = gr.State(None)
    slots: list[Any] = []
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = picture_input("Your picture")
            collection_button(loading, picture)
            labels = gr.Textbox(
                label=f"Labels, {MIN_LABELS} to {MAX_LABELS}, with commas between them",
                placeholder="a star, a circle, a heart",
                max_lines=MAX_LABELS,
            )
            prompt = gr.Dropdown(
                list(PROMPTS), value=AS_IT_IS, label="How to say a label", info="As prompts that models know better."
            )
        with gr.Column(scale=3, min_width=300):
            slots.extend(_slot(gr, 1))
            with gr.Accordion("Up to three more concepts", open=False):
                for number in range(2, SLOTS + 1):
                    slots.extend(_slot(gr, number))
            gr.HTML(
                '<p class="msae-small">Multiply: 0 switches a concept off, 1 leaves it, 3 triples it. Add: so many '
                "times its usual strength, also where it is not in the picture.</p>"
            )
            button = gr.Button("Compare", variant="primary")
            prompt.api_info = lambda: {"type": "string", "description": f'how a label is said, such as "{AS_IT_IS}"'}
            seen = gr.HTML(
                '<p class="msae-empty">The probabilities of the labels appear here. They are a softmax over your '
                "labels alone: one of them always wins, also where none fits.</p>"
            )
            told = gr.HTML()
            with gr.Accordion("The numbers", open=False):
                table = gr.JSON(show_label=False)

    def start() -> tuple[Any, ...]:
        explorer = loading.get()
        listed = [("none", ""), *((name, name) for name in explorer.concepts)]
        return (
            gr.Dropdown(choices=list(prompts(explorer))),
            example_labels(explorer),
            *[gr.Dropdown(choices=listed)] * SLOTS,
        )

    def embed(value: Any, kept: Any) -> tuple[str, torch.Tensor]:
        # Uploads lie in folders named by a hash of their content, so that a path stands for a picture.
        path = upload_path(value)
        if kept is not None and path is not None and kept[0] == str(path):
            return kept
        read = read_upload(value)
        return str(path), loading.get().embed_picture(read)

    def steer_(
        picture: Any, labels: Any, prompt: Any, embedded: Any,
        concept_1: Any, how_1: Any, amount_1: Any, concept_2: Any, how_2: Any, amount_2: Any,
        concept_3: Any, how_3: Any, amount_3: Any, concept_4: Any, how_4: Any, amount_4: Any,
    ) -> tuple[str, str, dict[str, Any], Any]:  # fmt: skip
        """How likely labels are for a picture, before and after some of its named concepts are changed.

        Args:
            picture: a picture file.
            labels: two to ten, with commas between them.
            prompt: how a label is said: "as it is", "a photo of a ...", "a picture of a ...", or, where concepts were named
                by texts, "as concepts are named".
            concept_1: name of a concept to change, "" for none.
            how_1: "multiply" its activation, or "add" to it.
            amount_1: from 0 to 3: what to multiply by, or how many times the concept's usual strength to add.
            concept_2: as concept_1.
            how_2: as how_1.
            amount_2: as amount_1.
            concept_3: as concept_1.
            how_3: as how_1.
            amount_3: as amount_1.
            concept_4: as concept_1.
            how_4: as how_1.
            amount_4: as amount_1.

        Returns:
            The probabilities as HTML, what was changed as HTML, and all numbers.
        """
        explorer = loading.get()
        edits = read_edits(
            explorer,
            [
                (concept_1, how_1, amount_1),
                (concept_2, how_2, amount_2),
                (concept_3, how_3, amount_3),
                (concept_4, how_4, amount_4),
            ],
        )
        chosen = read_labels(labels)
        embedded = embed(picture, embedded)
        found = steer(explorer, embedded[1], chosen, edits, prompt)
        return paired_bars(found), summary(found), asdict(found), embedded

    def changed(*values: Any) -> tuple[Any, ...]:
        """The same again as soon as something is changed, if there is a picture."""
        return steer_(*values) if values[0] is not None else (gr.skip(),) * 4

    def in_picture(value: Any, kept: Any) -> tuple[Any, ...]:
        explorer = loading.get()
        names = [(name, name) for name in explorer.concepts]
        if value is None:
            listed, kept = [("none", ""), *names], None
        else:
            kept = embed(value, kept)
            there = concepts_in(explorer, kept[1])
            first = [(f"{name} (in the picture, {activation:.1f})", name) for name, activation in there[:_SHOWN]]
            listed = [("none", ""), *first, *(each for each in names if each[1] not in dict(there[:_SHOWN]))]
        return (kept, *[gr.Dropdown(choices=listed)] * SLOTS)

    steer_.__name__ = "steer"
    inputs, outputs = [picture, labels, prompt, embedded, *slots], [seen, told, table, embedded]
    again: dict[str, Any] = {
        "preprocess": False,
        "api_visibility": "private",
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    gr.on(
        None,
        answering(start),
        None,
        [prompt, labels, *slots[::3]],
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
    )
    gr.on(
        [button.click, labels.submit],
        answering(steer_),
        inputs,
        outputs,
        preprocess=False,
        api_name="steer",
        show_progress="minimal",
        show_progress_on=seen,
    )
    picture.change(answering(in_picture), [picture, embedded], [embedded, *slots[::3]], **again).success(
        answering(changed), inputs, outputs, preprocess=False, api_visibility="private", show_progress="hidden"
    )
    triggers = [prompt.input, *(each.input for each in slots[::3]), *(each.input for each in slots[1::3])]
    gr.on([*triggers, *(each.release for each in slots[2::3])], answering(changed), inputs, outputs, **again)


def _slot(gr: Any, number: int) -> tuple[Any, Any, Any]:
    """The components of one concept."""
    with gr.Row(elem_classes="msae-slot"):
        concept = gr.Dropdown([("none", "")], value="", label=f"Concept {number}", min_width=150, scale=3)
        how = gr.Radio(list(HOW), value=MULTIPLY, label=f"Change {number}", min_width=150, scale=3)
        amount = gr.Slider(0, MOST, value=0, step=0.1, label=f"Amount {number}", min_width=150, scale=4, buttons=[])
    # Names are known when the explorer is loaded: clients are told to send any words.
    concept.api_info = lambda: {"type": "string", "description": 'name of a concept, or "" for none'}
    return concept, how, amount
