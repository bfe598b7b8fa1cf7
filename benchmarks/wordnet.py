"""Nouns of WordNet, read from the files of its database."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from hf_msae.neuron_labels.words import same_words


@cache
def form(text: str) -> str:
    """Return the form by which words are compared; "" for what is none."""
    try:
        return same_words(text)
    except ValueError:
        return ""


class WordNet:
    """WordNet's nouns: synsets by their number in the files, with their words and hypernyms."""

    def __init__(self, folder: Path) -> None:
        self.words: dict[str, list[str]] = {}
        self.hypernyms: dict[str, list[str]] = {}
        for line in _lines(folder / "data.noun"):
            fields = line.split(" | ")[0].split()
            number = int(fields[3], 16)
            pointers = fields[5 + 2 * number :]
            self.words[fields[0]] = [word.replace("_", " ").lower() for word in fields[4 : 4 + 2 * number : 2]]
            self.hypernyms[fields[0]] = [
                pointers[place + 1] for place in range(0, len(pointers) - 3, 4) if pointers[place] in ("@", "@i")
            ]
        split = map(str.split, _lines(folder / "index.noun"))
        self._first = {fields[0].replace("_", " "): fields[-int(fields[2])] for fields in split}
        self.nouns = {form(word): word for words in self.words.values() for word in words if len(word) > 2}

    def plain_words(self, synset: str) -> set[str]:
        """Return the forms of the words whose most frequent sense a synset is."""
        return {form(word) for word in self.words[synset] if self._first.get(word) == synset}

    def above(self, synset: str) -> dict[str, int]:
        """Return a synset and all its hypernyms, with the number of steps up."""
        found, level = {synset: 0}, [synset]
        while level:
            level = [each for below in level for each in self.hypernyms[below] if each not in found]
            found |= dict.fromkeys(level, max(found.values()) + 1)
        return found

    def steps(self, label: str | None, synset: str) -> float:
        """Return how many steps above a synset the nearest one is that a label names; infinite if none is."""
        named = (
            steps for each, steps in self.above(synset).items() if form(label or "") in map(form, self.words[each])
        )
        return min(named, default=np.inf)


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="latin-1").splitlines() if not line.startswith(" ")]
