"""What a repository is to hold after a release, given what it holds before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .card_edits import is_edited, update_card
from .index import INDEX_FILE, describe_model, read_index, render_index_card, write_index
from .remote import MANIFEST, Changes, Content, RemoteState, manifest
from .staging import CARD, WEIGHTS, StagedModel, pictures_of


@dataclass
class Published:
    """The files of a release.

    Args:
        repo_id: Repository, "user/name".
        branch: Branch to commit to.
        staged: The models.
        license: License of the weights, if one was given.
        replace_card: Whether to drop the edits that people have made in cards.

    Attributes:
        replaced: Subfolder of each model that was there with other weights -> the commit that holds it.
    """

    repo_id: str
    branch: str
    staged: Sequence[StagedModel]
    license: str | None = None
    replace_card: bool = False
    replaced: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _contents(self) -> dict[str, dict[str, Content]]:
        """Subfolder -> path in it -> content; kept, because hashing takes time."""
        return {each.subfolder: {name: Content(file) for name, file in each.files().items()} for each in self.staged}

    def plan(self, state: RemoteState | None) -> Changes:
        """What the branch is to hold.

        Args:
            state: What it holds; None for an empty repository.

        Raises:
            ValueError: The repository is no place for these models, or a card was edited in two places.
        """
        there = set() if state is None else set(state.files)
        at_root = any(each.subfolder == "" for each in self.staged)
        if at_root and INDEX_FILE in there:
            raise ValueError(
                f"{self.repo_id} holds several models in subfolders: push this one into a subfolder too "
                "(subfolder=..., --subfolder), or to a repository of its own"
            )
        if not at_root and "config.json" in there:
            raise ValueError(
                f"{self.repo_id} holds a model at its root, so it cannot have others in subfolders: push to another "
                "repository, or move that model into a subfolder of one"
            )
        files: dict[str, Content] = {}
        gone: list[str] = []
        cards: dict[str, str] = {}
        for model in self.staged:
            own = dict(self._contents[model.subfolder])
            sent = {"files": {}, "card": None} if state is None else state.sent_before(model.subfolder)
            self._check_place(model, state, own)
            on_hub = None if state is None else state.read(model.path_in_repo(CARD))
            cards[model.subfolder], from_here = self._card(model, on_hub, sent["card"])
            text = Content(cards[model.subfolder].encode())
            own[MANIFEST] = manifest(own, text.sha256 if from_here else None)
            own[CARD] = text
            if state is not None:
                gone += _stale_files(state, model, sent["files"], own, cards[model.subfolder])
            files |= {model.path_in_repo(name): content for name, content in own.items()}
        if not at_root:
            files |= self._root(state, cards)
        return Changes(dict(sorted(files.items())), tuple(sorted(gone)))

    def _check_place(self, model: StagedModel, state: RemoteState | None, own: Mapping[str, Content]) -> None:
        """Raise ValueError if something that is not an MSAE lies where this model is to go."""
        if state is None:
            return
        config, there = model.path_in_repo("config.json"), _weights_of(state, model)
        if config not in state.files:
            problem = f"weights ({there[0]}) without a config.json" if there else None
        else:
            kind = _model_type(state.read(config))
            problem = None if kind == "msae" else f"{config} of another model (model_type {kind!r})"
        if problem is not None:
            raise ValueError(
                f"{self.repo_id} holds {problem}, which a release would replace: push to another repository, or into "
                "a free subfolder (subfolder=..., --subfolder), or delete it on the Hub first"
            )
        weights = [name for name in own if WEIGHTS.fullmatch(name)]
        if config in state.files and not all(state.holds(model.path_in_repo(name), own[name]) for name in weights):
            self.replaced.setdefault(model.subfolder, state.commit)

    def _card(self, model: StagedModel, on_hub: str | None, sent: str | None) -> tuple[str, bool]:
        """The card, and whether it is without edits that were made on the Hub.

        Args:
            model: The model.
            on_hub: The card on the Hub.
            sent: SHA-256 of the card that was pushed last, if it was without edits made on the Hub.
        """
        name, options = model.path_in_repo(CARD), {"license": self.license, "replace": self.replace_card}
        edited_there = on_hub is not None and not self.replace_card and is_edited(on_hub)
        if model.local_card is None or self.replace_card:
            return update_card(on_hub, model.render_card, name=f"{name} on the Hub", **options), not edited_there
        if on_hub is not None and hashlib.sha256(on_hub.encode()).hexdigest() == sent:
            edited_there = False  # it came from this folder, and nobody has changed it since
        here = update_card(model.local_card, model.render_card, name=f"{name} in the run's folder", **options)
        if edited_there and update_card(on_hub, model.render_card, name=f"{name} on the Hub", **options) != here:
            raise ValueError(
                f"{name} was edited in the run's folder, and differently on the Hub ({self.repo_id}): copy the one to "
                "keep over the other, or drop all edits with replace_card=True (--replace_card)"
            )
        return here, True

    def _root(self, state: RemoteState | None, cards: Mapping[str, str]) -> dict[str, Content]:
        """The index and the card of all models, given the cards of those that are released."""
        there = set() if state is None else set(state.files)
        models = read_index(None if state is None else state.read(INDEX_FILE), self.repo_id)
        models = {name: line for name, line in models.items() if f"{name}/config.json" in there}
        models |= {each.subfolder: describe_model(each.folder, cards[each.subfolder]) for each in self.staged}
        text = update_card(
            None if state is None else state.read(CARD),
            lambda license: render_index_card(models, self.repo_id, license, self.branch),
            self.license,
            name=f"{CARD} on the Hub",
            replace=self.replace_card,
        )
        return {INDEX_FILE: Content(write_index(models).encode()), CARD: Content(text.encode())}


def _stale_files(
    state: RemoteState, model: StagedModel, sent: Mapping[str, str], own: Mapping[str, Content], card: str
) -> list[str]:
    """Paths of files that an earlier release has sent, that are unchanged there, and that this release lacks.

    Pictures on the card stay.

    Raises:
        ValueError: There are weights that no release has sent, so a mixture might be loaded.
    """
    stale = sorted(set(sent) - set(own) - pictures_of(card))
    gone = [path for name in stale if state.holds_sha256(path := model.path_in_repo(name), sent[name])]
    kept = {model.path_in_repo(name) for name in own}
    foreign = [path for path in _weights_of(state, model) if path not in kept and path not in gone]
    if foreign:
        raise ValueError(
            f"{state.repo_id} holds {foreign[0]}, which no release by hf_msae has sent, and which could be loaded "
            "instead of the new weights: delete it on the Hub if it is not needed, or push to another repository"
        )
    return gone


def _weights_of(state: RemoteState, model: StagedModel) -> list[str]:
    """Paths from which weights of this model could be loaded."""
    prefix = model.path_in_repo("")
    paths = [path for path in sorted(state.files) if path.startswith(prefix)]
    return [path for path in paths if WEIGHTS.fullmatch(path.removeprefix(prefix))]


def _model_type(config: str | None) -> str | None:
    """The model type in a config.json; None if it has none."""
    try:
        return json.loads(config or "{}").get("model_type")
    except (ValueError, AttributeError):  # not a config of ours
        return None
