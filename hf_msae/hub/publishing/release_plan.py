"""What a repository should hold after a release, given what it holds before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from huggingface_hub import CommitOperation, CommitOperationAdd

from .card_edits import is_edited, update_card
from .index import INDEX_FILE, describe_model, read_index, render_index_card, write_index
from .repository import Snapshot
from .sent_files import MANIFEST, manifest, read_manifest, sha256_of, stale_files
from .staging import CARD, WEIGHTS, StagedModel, pictures_of


@dataclass
class ReleasePlan:
    """The files of a release of `staged` models to a branch of a repository.

    `license` is that of the weights, if one was given, and `replace_card` drops the edits that people have made in
    cards. `replaced` maps the subfolder of each model that was there with other weights to the commit that holds it.
    """

    repo_id: str
    branch: str
    staged: Sequence[StagedModel]
    license: str | None = None
    replace_card: bool = False
    replaced: dict[str, str] = field(default_factory=dict)

    def operations(self, there: Snapshot) -> list[CommitOperation]:
        """What has to be sent and deleted, given what the branch holds.

        Raises ValueError if the repository is no place for these models, or a card was edited in two places.
        """
        at_root = any(not each.subfolder for each in self.staged)
        if at_root and INDEX_FILE in there.files:
            raise ValueError(
                f"{self.repo_id} holds several models in subfolders: push this one into a subfolder too "
                "(subfolder=..., --subfolder), or to a repository of its own"
            )
        if not at_root and "config.json" in there.files:
            raise ValueError(
                f"{self.repo_id} holds a model at its root, so it cannot have others in subfolders: push to another "
                "repository, or move that model into a subfolder of one"
            )
        added: list[CommitOperationAdd] = []
        deleted: list[CommitOperation] = []
        cards: dict[str, str] = {}
        for model in self.staged:
            prefix, own = model.prefix, dict(model.additions)
            self._check_place(model, there)
            sent, card_sent = read_manifest(there, self.repo_id, prefix)
            cards[model.subfolder], from_here = self._card(model, there.read(prefix + CARD), card_sent)
            card = CommitOperationAdd(prefix + CARD, cards[model.subfolder].encode())
            own[MANIFEST] = manifest(own, prefix, sha256_of(card) if from_here else None)
            own[CARD] = card
            stale = stale_files(there, sent, own.keys() | pictures_of(cards[model.subfolder]), prefix)
            gone = {each.path_in_repo for each in stale} | {prefix + name for name in own}
            if foreign := [path for path in _weights_in(there, prefix) if path not in gone]:
                raise ValueError(
                    f"{self.repo_id} holds {foreign[0]}, which no release by hf_msae has sent, and which could be "
                    "loaded instead of the new weights: delete it on the Hub if it is not needed, or push to another "
                    "repository"
                )
            added += own.values()
            deleted += stale
        if not at_root:
            added += self._root(there, cards)
        return [*sorted(added, key=lambda each: each.path_in_repo), *deleted]

    def _check_place(self, model: StagedModel, there: Snapshot) -> None:
        """Raise ValueError if something that is not an MSAE is where this model should go."""
        config, weights = model.prefix + "config.json", _weights_in(there, model.prefix)
        if config not in there.files:
            problem = f"weights ({weights[0]}) without a config.json" if weights else None
        else:
            kind = _model_type(there.read(config))
            problem = None if kind == "msae" else f"{config} of another model (model_type {kind!r})"
        if problem is not None:
            raise ValueError(
                f"{self.repo_id} holds {problem}, which a release would replace: push to another repository, or into "
                "a free subfolder (subfolder=..., --subfolder), or delete it on the Hub first"
            )
        ours = [each for name, each in model.additions.items() if WEIGHTS.fullmatch(name)]
        if config in there.files and there.pending(ours):
            self.replaced.setdefault(model.subfolder, there.commit)

    def _card(self, model: StagedModel, on_hub: str | None, sent: str | None) -> tuple[str, bool]:
        """The card, and whether it is without edits that were made on the Hub.

        `sent` is the SHA-256 of the card that was pushed last, if that was without such edits.
        """
        name = model.prefix + CARD

        def updated(card: str | None, where: str) -> str:
            return update_card(card, model.render_card, self.license, f"{name} {where}", self.replace_card)

        edited_there = on_hub is not None and not self.replace_card and is_edited(on_hub)
        if model.local_card is None or self.replace_card:
            return updated(on_hub, "on the Hub"), not edited_there
        if on_hub is not None and hashlib.sha256(on_hub.encode()).hexdigest() == sent:
            edited_there = False  # it came from this folder, and nobody has changed it since
        here = updated(model.local_card, "in the run's folder")
        if edited_there and updated(on_hub, "on the Hub") != here:
            raise ValueError(
                f"{name} was edited in the run's folder, and differently on the Hub ({self.repo_id}): copy the one to "
                "keep over the other, or drop all edits with replace_card=True (--replace_card)"
            )
        return here, True

    def _root(self, there: Snapshot, cards: Mapping[str, str]) -> list[CommitOperationAdd]:
        """The index and the card of all models, given the cards of those that are released."""
        models = read_index(there.read(INDEX_FILE), self.repo_id)
        models = {name: line for name, line in models.items() if f"{name}/config.json" in there.files}
        models |= {each.subfolder: describe_model(each.folder, cards[each.subfolder]) for each in self.staged}
        card = update_card(
            there.read(CARD),
            lambda license: render_index_card(models, self.repo_id, license, self.branch),
            self.license,
            f"{CARD} on the Hub",
            self.replace_card,
        )
        return [
            CommitOperationAdd(INDEX_FILE, write_index(models).encode()),
            CommitOperationAdd(CARD, card.encode()),
        ]


def _weights_in(there: Snapshot, prefix: str) -> list[str]:
    """Paths in a folder of the repository from which weights could be loaded."""
    found = sorted(path for path in there.files if path.startswith(prefix))
    return [path for path in found if WEIGHTS.fullmatch(path.removeprefix(prefix))]


def _model_type(config: str) -> str | None:
    """The model type in a config.json; None if it has none."""
    try:
        return json.loads(config).get("model_type")
    except (ValueError, AttributeError):  # not a config of ours
        return None
