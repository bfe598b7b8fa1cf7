"""A neuron, an imager and a proposer whose results are known: patches of color, and how red they are."""

import numpy as np
from PIL import Image

from hf_msae.neuron_labels import Answer, CannotDrawError, Imager, Proposer

COLORS = {
    **{"red": (230, 20, 20), "orange": (250, 140, 20), "pink": (250, 150, 180), "white": (250, 250, 250)},
    **{"green": (20, 200, 20), "blue": (20, 20, 220), "red thing": (230, 20, 20)},
}


class ColorImager(Imager):
    """Draws noisy patches of one color."""

    def __init__(self, most=None, noise=25.0):
        self.most, self.noise, self.calls = most, noise, []

    @property
    def settings(self):
        return {"imager": "colors", "noise": self.noise}

    def draw(self, concept, seeds):
        self.calls.append((concept, tuple(seeds)))
        if concept not in COLORS:
            raise CannotDrawError(f"there is no color {concept!r}")
        noise = [np.random.default_rng([seed, len(concept)]).normal(0, self.noise, (8, 8, 3)) for seed in seeds]
        return [Image.fromarray(np.clip(each + COLORS[concept], 0, 255).astype(np.uint8)) for each in noise]

    def most_pictures(self, concept):
        return self.most


class ListProposer(Proposer):
    """Proposes the words of a list, one after the other, whatever they score."""

    is_language_model = False

    def __init__(self, *words, tokens=0):
        self.words, self.tokens, self.requests = words, tokens, []

    @property
    def settings(self):
        return {"proposer": "list", "words": list(self.words)}

    def propose(self, requests):
        self.requests += requests
        found = []
        for request in requests:
            attempt, place = divmod(request.seed, 1000)
            word = self.words[place - 1] if place <= len(self.words) and attempt % 3 == 0 else None
            found.append(Answer(word, "" if word else "the list is over", calls=1, input_tokens=self.tokens))
        return found


def redness(images):
    return [float(np.asarray(each)[..., 0].mean() - np.asarray(each)[..., 1:].mean()) for each in images]
