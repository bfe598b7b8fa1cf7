import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_msae.backbones import Backbone
from hf_msae.clipart import load_clipart
from hf_msae.neuron_labels.imagers.base import CannotDrawError, image_sha256
from hf_msae.neuron_labels.imagers.collection import TagsImager
from hf_msae.neuron_labels.imagers.retrieval import RetrievalImager
from hf_msae.scenes import load_scenes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenes():
    return load_scenes("test", 300)


@pytest.fixture(scope="module")
def backbone():
    return Backbone.from_pretrained("scenes")


@pytest.fixture(scope="module")
def embeddings(scenes, backbone):
    return backbone.image_embeds(scenes["image"])


@pytest.fixture(scope="module")
def drawings():
    return load_clipart("sample")


def hashes(pictures):
    return [image_sha256(picture) for picture in pictures]


class TestRetrievalImager:
    def test_pictures_show_the_concept(self, scenes, backbone, embeddings):
        imager = RetrievalImager(scenes["image"], backbone, embeddings, pool=10)
        for concept in ("star", "a heart", "snow"):
            rows = imager.rows(concept, range(10))
            assert np.mean(scenes.select(rows)[concept.removeprefix("a ")]) >= 0.9
            expected = [image_sha256(scenes[row]["image"]) for row in rows]
            assert hashes(imager.draw(concept, range(10))) == expected

    def test_a_seed_is_one_picture_in_every_call(self, scenes, backbone, embeddings):
        imager = RetrievalImager(scenes["image"], backbone, embeddings, pool=20)
        assert imager.most_pictures("star") == 20
        rows = imager.rows("star", range(20))
        assert len(set(rows)) == 20
        again = RetrievalImager(scenes["image"], backbone, embeddings, pool=20)
        assert again.rows("star", [17, 3]) == [rows[17], rows[3]]
        assert again.rows("star", [1000 + n for n in range(20)]) == rows  # 1000 is 50 times round
        # Not in the order of similarity: the first seeds would have the best pictures.
        similarity = imager._similarities(["star"])[0][rows]
        assert not (np.diff(similarity) <= 0).all()
        assert set(rows) == set(np.argsort(-imager._similarities(["star"])[0])[:20].tolist())

    def test_a_call_never_repeats_a_picture(self, scenes, backbone, embeddings):
        imager = RetrievalImager(scenes["image"], backbone, embeddings, pool=20)
        assert len(imager.draw("star", [2, 2])) == 2
        with pytest.raises(CannotDrawError, match="20 pictures of 'star'"):
            imager.draw("star", [2, 22])

    def test_copies_count_once(self, scenes, backbone, embeddings):
        twice = [scenes[row % 30]["image"] for row in range(60)]
        imager = RetrievalImager(twice, backbone, torch.cat([embeddings[:30]] * 2), level=None)
        assert imager.most_pictures("star") == 30
        assert len(set(hashes(imager.draw("star", range(30))))) == 30

    @pytest.mark.parametrize("kind", ["rows", "images", "hashes", "copies"])
    def test_excluded_pictures_are_never_drawn(self, kind, scenes, backbone, embeddings):
        images, embeds = list(scenes["image"]), embeddings
        best = RetrievalImager(images, backbone, embeds, pool=8).rows("star", range(8))
        excluded = {
            "rows": best,
            "images": [images[row] for row in best],
            "hashes": [image_sha256(images[row]) for row in best],
            "copies": range(300, 308),  # other rows with the same pictures
        }[kind]
        if kind == "copies":
            images, embeds = images + [images[row] for row in best], torch.cat([embeds, embeds[best]])
        imager = RetrievalImager(images, backbone, embeds, exclude=excluded, pool=300, level=None)
        assert imager.most_pictures("star") == 292
        never = {image_sha256(images[row]) for row in best}
        assert not never & set(hashes(imager.draw("star", range(292))))
        assert not set(best) & set(imager.unlike("star").tolist()) or kind in ("images", "hashes")

    def test_excluding_all_leaves_none(self, scenes, backbone, embeddings):
        imager = RetrievalImager(scenes["image"], backbone, embeddings, exclude=range(300))
        assert imager.most_pictures("star") == 0
        with pytest.raises(CannotDrawError, match="star"):
            imager.draw("star", [0])

    def test_the_test_refuses_most_words_without_pictures_and_few_with(self, scenes, backbone, embeddings):
        imager = RetrievalImager(scenes["image"], backbone, embeddings)
        there = ["star", "heart", "flower", "house", "ring", "arrow", "snow", "bricks", "night", "desert", "beach"]
        missing = ["giraffe", "violin", "pizza", "umbrella", "castle", "laptop", "penguin", "guitar", "sandwich"]
        drawn = [concept for concept in there + missing if imager.most_pictures(concept)]
        assert len(set(drawn) & set(there)) >= 9
        assert len(set(drawn) & set(missing)) <= 3
        refused = next(concept for concept in missing if concept not in drawn)
        with pytest.raises(CannotDrawError, match=refused):
            imager.draw(refused, [0])
        assert RetrievalImager(scenes["image"], backbone, embeddings, level=None).most_pictures(refused) == 50

    def test_invented_words_pass_as_often_as_the_level_says(self, scenes, backbone, embeddings):
        imager = RetrievalImager(scenes["image"], backbone, embeddings)
        random = np.random.default_rng(5)
        words = ["".join(random.choice(list("bdfgklmnprstv")) + random.choice(list("aeiou")) for _ in range(3))
                 for _ in range(200)]  # fmt: skip
        passed = np.mean([imager.p_value(word) <= 0.1 for word in words])
        assert 0.02 <= passed <= 0.2

    def test_a_column_is_decoded_as_needed(self, scenes, backbone, embeddings, monkeypatch):
        decoded = []
        decode = datasets.Image.decode_example
        monkeypatch.setattr(
            datasets.Image, "decode_example", lambda *args, **kwargs: decoded.append(1) or decode(*args, **kwargs)
        )
        imager = RetrievalImager(scenes["image"], backbone, embeddings, exclude=range(100), pool=15)
        imager.draw("star", range(3))
        assert 3 <= len(decoded) <= 15 + 3

    def test_embeds_the_images_itself(self, scenes, backbone, embeddings):
        images = [scenes[row]["image"] for row in range(40)]
        found = RetrievalImager(images, "scenes", level=None)
        given = RetrievalImager(images, backbone, embeddings[:40].numpy(), level=None)
        assert found.rows("star", range(40)) == given.rows("star", range(40))

    def test_the_template_is_not_a_format(self, scenes, backbone, embeddings):
        imager = RetrievalImager(scenes["image"], backbone, embeddings, template="a picture of a {}", level=None)
        assert imager.most_pictures("{0.__class__} {star}") == 50
        with pytest.raises(ValueError, match="a picture"):
            RetrievalImager(scenes["image"], backbone, embeddings, template="a picture")

    def test_settings_tell_what_pictures_depend_on(self, scenes, backbone, embeddings):
        def settings(embeds=embeddings, **options):
            return json.dumps(RetrievalImager(scenes["image"], backbone, embeds, **options).settings)

        others = embeddings.clone()
        others[0] += 1
        different = [
            settings(),
            settings(others),
            settings(exclude=[3]),
            settings(exclude=["ab"]),
            settings(pool=7),
            settings(template="the {}"),
            settings(level=None),
        ]
        assert len(set(different)) == len(different)
        assert settings() == different[0]

    def test_refuses_what_does_not_fit(self, scenes, backbone, embeddings):
        for arguments, named in (
            ({"embeddings": embeddings[:9]}, "9"),
            ({"embeddings": embeddings[:, :7]}, "7"),
            ({"embeddings": torch.full_like(embeddings, torch.nan)}, "image 0"),
            ({"embeddings": embeddings, "exclude": [300]}, "300"),
            ({"embeddings": embeddings, "pool": 0}, "0"),
            ({"embeddings": embeddings, "level": 1.5}, "1.5"),
        ):
            with pytest.raises(ValueError, match=named):
                RetrievalImager(scenes["image"], backbone, **arguments)
        with pytest.raises(TypeError, match="mask"):
            RetrievalImager(scenes["image"], backbone, embeddings, exclude=[True, False])
        with pytest.raises(ValueError, match="no images"):
            RetrievalImager([], backbone)


class TestTagsImager:
    def test_pictures_have_the_tag(self, drawings):
        imager = TagsImager(drawings["image"], drawings["tags"])
        flags = [row for row, tags in enumerate(drawings["tags"]) if "flag" in tags]
        assert len(flags) > 10
        assert imager.most_pictures("flag") == len({image_sha256(drawings[row]["image"]) for row in flags})
        rows = imager.rows("Flags!", range(imager.most_pictures("flag")))
        assert set(rows) <= set(flags)
        assert len(set(hashes(imager.draw("flag", range(10))))) == 10
        assert not set(imager.unlike("flag").tolist()) & set(flags)

    def test_excluded_drawings_are_left_out(self, drawings):
        flags = [row for row, tags in enumerate(drawings["tags"]) if "flag" in tags]
        imager = TagsImager(drawings["image"], drawings["tags"], exclude=flags[:-1], pool=5)
        assert imager.rows("flag", range(3)) == [flags[-1]] * 3
        assert not set(imager.unlike("bird").tolist()) & set(flags[:-1])

    def test_a_tag_that_is_not_there_is_named(self, drawings):
        imager = TagsImager(drawings["image"], drawings["tags"])
        assert imager.most_pictures("hovercraft") == 0
        for concept in ("hovercraft", "7"):
            with pytest.raises(CannotDrawError, match=concept):
                imager.draw(concept, [0])

    def test_settings_and_errors(self, drawings):
        images = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
        one = TagsImager(images, [["a red one"], []]).settings
        assert json.loads(json.dumps(one)) == one
        assert one != TagsImager(images, [["a red one"], ["blue"]]).settings
        with pytest.raises(ValueError, match="tags of 1"):
            TagsImager(images, [["x"]])
