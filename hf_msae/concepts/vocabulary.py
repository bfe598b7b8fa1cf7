"""The words that may become names."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

import torch
from transformers.utils import logging

from .._utils.atomic import atomic_path
from .._utils.cache import cache_folder, cache_root
from .._utils.tensors import as_tensor

if TYPE_CHECKING:
    from datasets import Dataset

    from ..backbones import Backbone
    from ..model.modeling_msae import MSAEModel

logger = logging.get_logger(__name__)


class Vocabulary:
    """An ordered list of distinct words or short phrases, with the prompts that a text encoder reads them in.

    Args:
        words: Candidates for names. Space around them, empty ones and repetitions are left out.
        templates: Prompts with one `{}` for the word. The embeddings of a word's prompts are averaged.
        order: What the words are ordered by. With "frequency", the most frequent word comes first, and is preferred
            among words that pictures cannot tell apart; anything else is only recorded.

    Raises:
        ValueError: There are no words, a word holds a NUL character, or a template does not have exactly one `{}`.
        TypeError: A word is not a string.
    """

    def __init__(self, words: Iterable[str], templates: Iterable[str] = ("{}",), order: str | None = None):
        if isinstance(words, str):
            raise TypeError(f"words must be a list of words, got the single string {words!r}")
        if isinstance(words, Mapping) or getattr(words, "ndim", 1) != 1:  # keys or names of columns are rarely meant
            which = "list(...) of its keys or values" if isinstance(words, Mapping) else "one of its columns"
            raise TypeError(f"words must be a list of words, got a {type(words).__name__}: pass {which}")
        words = sorted(words, key=str) if isinstance(words, Set) else list(words)  # the order of a set is random
        for place, word in enumerate(words):
            if not isinstance(word, str):
                raise TypeError(f"word {place} of the vocabulary is {word!r}, not a string")
            if "\0" in word:
                raise ValueError(f"word {place} of the vocabulary, {word!r}, holds a NUL character")
        self.words: tuple[str, ...] = tuple(_distinct(words))
        self.templates: tuple[str, ...] = (templates,) if isinstance(templates, str) else tuple(templates)
        self.order = order
        if not self.words:
            raise ValueError("a vocabulary needs at least one word")
        for template in self.templates:
            check_template(template)
        if not self.templates:
            raise ValueError("a vocabulary needs at least one template; '{}' is the bare word")

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike,
        templates: Iterable[str] = ("{}",),
        limit: int | None = None,
        column: str | None = None,
    ) -> Vocabulary:
        """Read the words of a text file, one per line, or of a column of a .csv or .tsv table.

        Args:
            path: Text file in UTF-8, or in UTF-16 with a byte-order mark.
            templates: Prompts, as for `Vocabulary`.
            limit: Number of words to take from the top. Defaults to all.
            column: Column of a table, by its name in the first line.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not such text, holds no words, or has no such column.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no vocabulary file {path}")
        text = decoded_text(path)
        if path.suffix.lower() in (".csv", ".tsv"):
            words = _column_of(text, path, column)
        elif column is None:
            words = re.split("\r\n?|\n", text)  # not splitlines, which also splits at characters that words may hold
        else:
            raise ValueError(f"{path} has no column {column!r}: only .csv and .tsv files have columns")
        words = _distinct(words)[:limit]
        if not words:
            raise ValueError(f"{path} holds no words")
        return cls(words, templates, order=f"as in {path.name}")

    @classmethod
    def from_dataset(
        cls, dataset: Dataset, column: str, templates: Iterable[str] = ("{}",), limit: int | None = None
    ) -> Vocabulary:
        """Take the distinct strings of a dataset's column, most frequent first; lists of strings count word by word.

        Of a column of class labels, the words are the names of the classes.

        Raises:
            ValueError: There is no such column, or it holds something other than strings or class labels.
        """
        if column not in dataset.column_names:
            raise ValueError(f"the dataset has no column {column!r}, only {', '.join(dataset.column_names)}")
        from datasets import ClassLabel

        feature = dataset.features[column]
        feature = getattr(feature, "feature", feature)  # of a list
        names = feature.names if isinstance(feature, ClassLabel) else None
        counts: Counter[str] = Counter()
        for value in dataset[column]:
            values = value if isinstance(value, list) else [value]
            if names is not None:  # -1 is an unknown class
                values = [None if each is None or each < 0 else names[each] for each in values]
            if not all(isinstance(each, str) or each is None for each in values):
                raise ValueError(f"column {column!r} holds {value!r:.80}, which is not a string")
            counts.update(each.strip() for each in values if each and each.strip())
        if not counts:
            raise ValueError(f"column {column!r} holds no words")
        return cls([word for word, _ in counts.most_common(limit)], templates, order="frequency")

    @classmethod
    def of_scenes(cls) -> Vocabulary:
        """Make a vocabulary of the concepts of `hf_msae.scenes`, with the prompts that its SigLIP was trained on."""
        from ..scenes import CONCEPTS

        return cls(CONCEPTS, ("{}", "a {} shape", "a picture of something {}"), order="group")

    def filtered(
        self, min_letters: int = 3, stop_words: bool | Iterable[str] = True, sensitive: Iterable[str] = ()
    ) -> Vocabulary:
        """Return a copy without words that are unfit as names.

        Args:
            min_letters: Smallest number of letters. Lists of frequent words are full of pieces like "th" and "s".
            stop_words: Function words to leave out ("the", "however"); True for scikit-learn's English list.
            sensitive: Words that must not become names, in upper or lower case, alone or within phrases.

        Raises:
            ValueError: No word is left.
        """
        if stop_words is True:
            from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS as stop_words
        stopped = {word.lower() for word in stop_words or ()}
        unwanted = {word.lower() for word in sensitive}
        words = [
            word
            for word in self.words
            if sum(map(str.isalpha, word)) >= min_letters
            and word.lower() not in stopped
            and word.lower() not in unwanted
            and not unwanted & set(word.lower().split())
        ]
        if not words:
            raise ValueError(f"none of the {len(self)} words passes the filters")
        return Vocabulary(words, self.templates, self.order)

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __repr__(self) -> str:
        shown = ", ".join(self.words[:5]) + (", ..." if len(self) > 5 else "")
        return f"Vocabulary({len(self)} words: {shown})"

    def embed(
        self, text_embeds: Backbone | Callable[[list[str]], torch.Tensor], cache_dir: str | os.PathLike | None = None
    ) -> torch.Tensor:
        """Embed every word: the mean of its prompts' embeddings, each scaled to unit length.

        Args:
            text_embeds: A [`Backbone`], whose embeddings are cached on disk unless they are edited; or a function from
                prompts to an array of shape (len(prompts), d).
            cache_dir: Folder of the cache. Defaults to `vocabularies` in HF_MSAE_CACHE (`hf_msae` in HF_HOME). Where
                nothing can be written, there is only a warning.

        Returns:
            Embeddings (len(self), d), float32.

        Raises:
            ValueError: The backbone has no text tower.
        """
        from ..backbones import Backbone

        if not isinstance(text_embeds, Backbone):
            return self._embed(text_embeds)
        if not text_embeds.has_text_tower:
            raise ValueError(
                f"{text_embeds.label} cannot embed words, since it has no text tower; its latents can be named by "
                "labels of the data (name_by_labels, or hf-msae name --label_columns)"
            )
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save

        from .editing import is_edited

        if is_edited(text_embeds.model):
            return self._embed(text_embeds.text_embeds).cpu()
        folder = Path(cache_dir).expanduser() if cache_dir else cache_root() / "vocabularies"
        identity = json.dumps([self.words, self.templates, text_embeds.provenance()], sort_keys=True)
        file = folder / f"{hashlib.sha256(identity.encode()).hexdigest()}.safetensors"
        with suppress(OSError, SafetensorError, KeyError):  # none is there, or it is damaged
            return load_file(file)["embeds"]
        embeds = self._embed(text_embeds.text_embeds).cpu().contiguous()
        try:
            if cache_dir:
                folder.mkdir(parents=True, exist_ok=True)
            else:
                file = cache_folder("vocabularies") / file.name
            with atomic_path(file) as temporary:
                temporary.write_bytes(save({"embeds": embeds}))
        except OSError as error:  # computing them again costs less than losing them now
            logger.warning_once(f"embeddings of words are not kept in {file.parent} for later runs: {error}")
        return embeds

    def _embed(self, text_embeds: Callable[[list[str]], torch.Tensor]) -> torch.Tensor:
        prompts = [template.format(word) for word in self.words for template in self.templates]
        embeds = torch.nn.functional.normalize(as_tensor(text_embeds(prompts)).float(), dim=-1)
        return embeds.reshape(len(self), len(self.templates), -1).mean(1)


def _distinct(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, map(str.strip, words))))


def decoded_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte-order mark; raises ValueError if it is no such text."""
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{path} holds a NUL character in line {line}: save it as UTF-8 text")
    return text


def _column_of(text: str, path: Path, column: str | None) -> list[str]:
    is_tsv = path.suffix.lower() == ".tsv"

    def read(quoting: int) -> list[str]:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if is_tsv else ",", quoting=quoting)
        names = table.fieldnames or []
        if column not in names:
            problem = "is a table" if column is None else f"has no column {column!r}"
            raise ValueError(
                f"{path} {problem}: choose one of its columns {', '.join(names)} with column= or --vocabulary_column, "
                "or give a .txt file with one word per line"
            )
        return [row[column] or "" for row in table]

    try:
        words = read(csv.QUOTE_MINIMAL)
        swallowed = next((word for word in words if "\n" in word.strip()), None)
        problem = None if swallowed is None else f"{swallowed!r:.80} is no word"
    except csv.Error as error:
        problem = str(error)
    if problem is None:
        return words
    if is_tsv:  # where a quotation mark is often a mark like any other, as in lists of frequent words
        return read(csv.QUOTE_NONE)
    raise ValueError(f"{path} cannot be read, as if a quotation mark were not closed: {problem}")


def check_template(template: str) -> None:
    """Raise ValueError unless a prompt has exactly one `{}` for the word and no other braces, except doubled ones."""
    try:
        fields = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError:  # a single brace
        fields = []
    if fields != [("", "", None)]:
        raise ValueError(f"a template needs one {{}} where the word goes and no other braces, got {template!r}")


def check_vocabulary_embeds(msae: MSAEModel, vocabulary: Vocabulary, vocabulary_embeds: torch.Tensor) -> torch.Tensor:
    """Check a vocabulary and its embeddings, and return them as float32."""
    if not isinstance(vocabulary, Vocabulary):
        raise TypeError(f"vocabulary takes a Vocabulary, such as Vocabulary(words), not {type(vocabulary).__name__}")
    embeds = as_tensor(vocabulary_embeds).float()
    if embeds.ndim != 2 or len(embeds) != len(vocabulary):
        raise ValueError(f"vocabulary_embeds has shape {tuple(embeds.shape)}, but there are {len(vocabulary)} words")
    config = msae.config
    if embeds.shape[1] != config.d_in:
        raise ValueError(
            f"vocabulary_embeds has {embeds.shape[1]} columns, but this MSAE was trained on {config.d_in} "
            f"({config.base_model_name_or_path}, {config.hook_point}); embed the words with that backbone"
        )
    if not torch.isfinite(embeds).all():
        row = int((~torch.isfinite(embeds).all(1)).nonzero()[0])
        raise ValueError(f"the embedding of {vocabulary.words[row]!r} is not finite")
    return embeds
