"""What a repository is to hold after a release, given what it holds before: merged cards, and the index."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml
from transformers.utils import logging

from ..._utils.json_files import write_json
from .card import read_json
from .card_edits import agree_on_licence, is_edited, merge_card
from .index import INDEX_FILE, describe_model, read_index, render_index_card, write_index
from .manifest import MANIFEST, is_weights, stale_files, write_manifest
from .remote import Changes, Content, RemoteState
from .staging import CARD, StagedModel, pictures_of
from .verification import verify_card

logger = logging.get_logger(__name__)

_MEMORY = ".pushed.json"


@dataclass
class Published:
    """The files of a release.

    Args:
        repo_id: "user/name".
        branch: to commit to.
        staged: the models.
        card: whose edits of a card to keep where they differ, or "fresh"; None makes that an error.
        license: of the weights, where it was said: then it beats what a card on the Hub says.

    Attributes:
        replaced: path of each model that was there with other weights before -> commit that holds it.
    """

    repo_id: str
    branch: str
    staged: Sequence[StagedModel]
    card: str | None = None
    license: str | None = None
    replaced: dict[str, str] = field(default_factory=dict)
    _from_here: dict[str, bool] = field(default_factory=dict, repr=False)

    @cached_property
    def _contents(self) -> dict[str, dict[str, Content]]:
        """Of each model, path in the repository -> content; kept, since they are hashed."""
        return {each.subfolder: {path: Content(file) for path, file in each.files().items()} for each in self.staged}

    def plan(self, state: RemoteState | None) -> Changes:
        """What the branch is to hold.

        Args:
            state: what it holds; None for an empty repository.

        Raises:
            ValueError: the repository is no place for these models, a card was edited in two places, or claims what
                was not measured.
        """
        there = set() if state is None else set(state.files)
        at_root = any(each.subfolder == "" for each in self.staged)
        if at_root and INDEX_FILE in there:
            raise ValueError(
                f"{self.repo_id} holds several models in subfolders: push this one into one too (subfolder=..., "
                "--subfolder), or to a repository of its own"
            )
        if not at_root and "config.json" in there:
            raise ValueError(
                f"{self.repo_id} holds a model at its root, so it cannot have others in subfolders: push to another "
                "repository, and that model into a subfolder of it if they belong together"
            )
        files: dict[str, Content] = {}
        gone: list[str] = []
        cards: dict[str, str] = {}
        for each in self.staged:
            own = dict(self._contents[each.subfolder])
            self._check_place(each, state, own)
            text = self._merged_card(each, None if state is None else state.read(each.path_in_repo(CARD)))
            own[each.path_in_repo(MANIFEST)] = Content(write_manifest(each, own))
            own[each.path_in_repo(CARD)] = Content(text.encode())
            cards[each.subfolder] = text
            gone += stale_files(state, each, set(own), pictures_of(text))
            files |= own
        if not at_root:
            files |= self._root(state, cards)
        return Changes(dict(sorted(files.items())), tuple(sorted(gone)))

    def _check_place(self, model: StagedModel, state: RemoteState | None, own: Mapping[str, Content]) -> None:
        """Raises:
        ValueError: something that is no MSAE lies where this model is to go.
        """
        if state is None:
            return
        config = model.path_in_repo("config.json")
        there, weights = ([each for each in paths if is_weights(model, each)] for paths in (state.files, own))
        if config not in state.files:
            what = f"weights ({sorted(there)[0]}) without a config.json" if there else None
        else:
            kind = _model_type(state.read(config))
            what = None if kind == "msae" else f"{config} of another model (model_type {kind!r})"
        if what is not None:
            raise ValueError(
                f"{self.repo_id} holds {what}, which a release would replace: push to another repository, or into a "
                "subfolder that is free (subfolder=..., --subfolder); or delete it on the Hub first"
            )
        if config in state.files and not all(state.holds(path, own[path]) for path in weights):
            self.replaced.setdefault(model.subfolder, state.commit)

    def _merged_card(self, model: StagedModel, on_hub: str | None) -> str:
        text = agree_on_licence(lambda fresh: self._choose_card(model, fresh, on_hub), model.render_card)
        metrics = model.folder / "metrics.json"
        verify_card(text, json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else None)
        return text

    def _choose_card(self, model: StagedModel, fresh: str, on_hub: str | None) -> str:
        here = model.local_card
        from_here = None if here is None else self._merge(fresh, here, "of the run")
        from_hub = None
        if on_hub is not None and is_edited(on_hub):
            from_hub = self._merge(fresh, on_hub, f"on the Hub ({model.path_in_repo(CARD)})")
        if self.card == "fresh":
            text = fresh
        elif from_here is None or from_hub is None or from_here == from_hub:
            text = from_here or from_hub or fresh
        elif self.card is not None:
            text = from_here if self.card == "local" else from_hub
        elif self._remembered(model) == _digest(on_hub):  # nobody has touched it since it was pushed from here
            text = from_here
        else:
            name = model.path_in_repo(CARD)
            raise ValueError(
                f"the card was edited in the run's folder, and differently on the Hub ({self.repo_id}, {name}): bring "
                "the two together, or choose with card='local', 'hub' or 'fresh' (--card)"
            )
        self._from_here[model.subfolder] = text in (fresh, from_here)
        return text

    def _merge(self, fresh: str, existing: str, where: str) -> str:
        """The fresh card with what people have changed in the one that is there."""
        if self.card == "fresh":
            return fresh
        ours = ("license",) if self.license else ()
        front, body = _parts(existing)
        if not body.strip():  # as the Hub's page for new repositories makes it: a licence, and no text
            theirs = {key: value for key, value in (yaml.safe_load(front) or {}).items() if key not in ours}
            metadata = yaml.safe_load(_parts(fresh)[0]) | theirs
            text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000)
            return f"---\n{text}---\n{_parts(fresh)[1]}"
        if "<!-- hf_msae:" not in body:
            logger.warning(
                f"the card {where} was not made by this version of hf_msae: its text stays, and what it lacks of the "
                "metadata, and what was measured, are added to it; a new one takes its place with card='fresh' "
                "(--card fresh)"
            )
        return merge_card(fresh, existing, ours)

    def _root(self, state: RemoteState | None, cards: Mapping[str, str]) -> dict[str, Content]:
        """The index and the card of all models.

        Args:
            cards: subfolder -> card, of those that are released.
        """
        models = read_index(None if state is None else state.read(INDEX_FILE), self.repo_id)
        there = set() if state is None else set(state.files)
        models = {name: line for name, line in models.items() if f"{name}/config.json" in there}
        models |= {each.subfolder: describe_model(each.folder, cards[each.subfolder]) for each in self.staged}
        text = render_index_card(models, self.repo_id, self.license, self.branch)
        before = None if state is None or self.card == "fresh" else state.read(CARD)
        if before is not None and is_edited(before):
            text = self._merge(text, before, "on the Hub (README.md)")
        return {INDEX_FILE: Content(write_index(models).encode()), CARD: Content(text.encode())}

    # -- what was pushed from a folder last: an edited card on the Hub that is this very one was edited here ------

    def _key(self, model: StagedModel) -> str:
        return f"{self.repo_id}@{self.branch}/{model.subfolder}"

    def _remembered(self, model: StagedModel) -> str | None:
        file = None if model.run_dir is None else model.run_dir / _MEMORY
        return None if file is None else (read_json(file) or {}).get(self._key(model))

    def remember(self, changes: Changes) -> None:
        """Note beside each run which card was pushed, where all of its edits were made there."""
        for model in self.staged:
            text = changes.files[model.path_in_repo(CARD)].source.decode()
            if model.run_dir is None or not is_edited(text):
                continue
            file: Path = model.run_dir / _MEMORY
            known = read_json(file) or {}
            known.pop(self._key(model), None)
            if self._from_here[model.subfolder]:
                known[self._key(model)] = _digest(text)
            try:
                write_json(file, known)
            except OSError as error:
                logger.warning(
                    f"{file} cannot be written ({error}): when this run is pushed again with other edits in its "
                    "README.md, the Hub's card will count as edited there"
                )


def _parts(card: str) -> tuple[str, str]:
    """The YAML between the lines ---, and what follows it."""
    found = re.match(r"\s*---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", card, flags=re.DOTALL | re.MULTILINE)
    return (found.group(1), card[found.end() :]) if found else ("", card)


def _model_type(config: str) -> str | None:
    """What kind of model a config.json is of; None where it does not say."""
    try:
        return json.loads(config).get("model_type")
    except (ValueError, AttributeError):
        return None  # it is none of ours


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
