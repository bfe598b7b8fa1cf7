"""The words that may become names."""

import errno
import re
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from hf_msae.concepts import Vocabulary, vocabulary


def test_templates_are_averaged_as_unit_vectors():
    directions = {"red": [3.0, 0.0], "a red shape": [0.0, 5.0], "star": [0.0, 2.0], "a star shape": [0.0, 1.0]}
    words = Vocabulary(["red", "star"], templates=("{}", "a {} shape"))
    for array in (torch.tensor, np.array):
        embeds = words.embed(lambda prompts, array=array: array([directions[prompt] for prompt in prompts]))
        assert torch.allclose(embeds, torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    assert list(words) == ["red", "star"] and len(words) == 2


@pytest.mark.parametrize(
    ("words", "templates", "error", "message"),
    [
        ([], ("{}",), ValueError, "at least one word"),
        ([" ", ""], ("{}",), ValueError, "at least one word"),
        (["red", "r\0e"], ("{}",), ValueError, r"word 1.*NUL"),
        (["red", 3], ("{}",), TypeError, r"word 1.*3"),
        ("red", ("{}",), TypeError, "'red'"),
        (["red"], ("a picture",), ValueError, "'a picture'"),
        (["red"], ("{}", "a {} of {size}"), ValueError, "'a {} of {size}'"),
        (["red"], ("{} and {}",), ValueError, "'{} and {}'"),
        (["red"], ("{0}",), ValueError, "'{0}'"),
        (["red"], ("{} {",), ValueError, "'{} {'"),
        (["red"], (), ValueError, "at least one template"),
    ],
)
def test_bad_vocabularies_are_refused(words, templates, error, message):
    with pytest.raises(error, match=re.escape(message) if "{" in message else message):
        Vocabulary(words, templates)


def test_from_a_text_file(tmp_path):
    (tmp_path / "words.txt").write_text("\ufeffthe\n\nred \nthe\nblue\n", encoding="utf-8")
    vocabulary = Vocabulary.from_file(tmp_path / "words.txt")
    assert vocabulary.words == ("the", "red", "blue") and vocabulary.order == "as in words.txt"
    assert Vocabulary.from_file(tmp_path / "words.txt", limit=2).words == ("the", "red")
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        Vocabulary.from_file(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"empty\.txt"):
        Vocabulary.from_file(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.txt.*UTF-8"):
        Vocabulary.from_file(tmp_path / "latin.txt")


ODD = ["a\u2028b", "c\u0085d", "e\x0cf", "g\x1ch", "word"]


@pytest.mark.parametrize(("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-8-sig"), ("\r\n", "utf-16")])
def test_a_line_is_a_word_whatever_it_holds(tmp_path, end, encoding):
    lines = [*ODD, "", "word", " word "]
    (tmp_path / "words.txt").write_bytes(end.join(lines).encode(encoding))
    assert list(Vocabulary.from_file(tmp_path / "words.txt")) == ODD
    assert list(Vocabulary(lines)) == ODD


def test_utf_16_without_its_mark_is_refused(tmp_path):
    (tmp_path / "words.txt").write_bytes("red\nblue\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"words\.txt.*NUL"):
        Vocabulary.from_file(tmp_path / "words.txt")


@pytest.mark.parametrize(("suffix", "mark"), [("csv", ","), ("TSV", "\t")])
def test_a_table_has_columns(tmp_path, suffix, mark):
    path = tmp_path / f"words.{suffix}"
    path.write_text(f'count{mark}word\n3{mark}"red{mark} dark"\n2{mark}\n1{mark}blue\n4\n')
    assert Vocabulary.from_file(path, column="word").words == (f"red{mark} dark", "blue")
    for column in (None, "words"):
        with pytest.raises(ValueError, match=rf"words\.{suffix}.*count, word"):
            Vocabulary.from_file(path, column=column)
    (tmp_path / "words.txt").write_text("red\n")
    with pytest.raises(ValueError, match=r"words\.txt.*'word'"):
        Vocabulary.from_file(tmp_path / "words.txt", column="word")


@pytest.mark.parametrize("number", [2, 40_000])  # of words after the mark, all of which it would swallow
def test_a_quotation_mark_may_be_a_word(tmp_path, number):
    rows = ["word,count", "the,9", '",8', *(f"w{place},1" for place in range(number))]
    (tmp_path / "words.tsv").write_text("\n".join(rows).replace(",", "\t"))
    words = Vocabulary.from_file(tmp_path / "words.tsv", column="word").words
    assert words[:3] == ("the", '"', "w0") and len(words) == 2 + number
    (tmp_path / "words.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"words\.csv.*quotation"):
        Vocabulary.from_file(tmp_path / "words.csv", column="word")
    (tmp_path / "words.csv").write_text('word,meaning\n"hot, dog","a\nmeal"\n')
    assert Vocabulary.from_file(tmp_path / "words.csv", column="word").words == ("hot, dog",)


def test_from_a_column():
    data = datasets.Dataset.from_dict({"tag": ["cat", "dog", None, "dog "], "tags": [["a", "b"], ["b"], [], ["c"]]})
    assert Vocabulary.from_dataset(data, "tag").words == ("dog", "cat")
    assert Vocabulary.from_dataset(data, "tags", limit=1).words == ("b",)
    kinds = datasets.ClassLabel(names=["ant", "bee", "cow"])
    features = datasets.Features(label=kinds, labels=datasets.List(kinds))
    classes = datasets.Dataset.from_dict({"label": [2, 0, None, 2, -1], "labels": [[2, 1], [], [1], [], []]}, features)
    assert Vocabulary.from_dataset(classes, "label").words == ("cow", "ant")
    assert Vocabulary.from_dataset(classes, "labels").words == ("bee", "cow")
    with pytest.raises(ValueError, match=r"'label'.*tag, tags"):
        Vocabulary.from_dataset(data, "label")
    with pytest.raises(ValueError, match=r"'n'.*3"):
        Vocabulary.from_dataset(datasets.Dataset.from_dict({"n": [3]}), "n")


def test_filters():
    words = Vocabulary(["the", "th", "red", "Nurse", "old nurse", "x1y2", "However"], ["a {}"], order="frequency")
    kept = words.filtered(sensitive=["nurse"])
    assert kept.words == ("red",) and kept.templates == ("a {}",) and kept.order == "frequency"
    assert words.filtered(1, stop_words=False).words == words.words
    assert words.filtered(1, stop_words=["red"]).words[2] == "Nurse"
    with pytest.raises(ValueError, match="1 words"):
        Vocabulary(["the"]).filtered()


def test_embeddings_are_kept_for_the_backbone_and_the_prompts(backbones, tmp_path, monkeypatch):
    backbone = backbones["SiglipModel"]
    words = Vocabulary(["red", "blue square"], ["{}", "a {}"])
    first = words.embed(backbone, tmp_path)
    torch.testing.assert_close(first, words.embed(backbone.text_embeds))
    assert len(list(tmp_path.iterdir())) == 1
    Vocabulary(["red", "blue square"], ["a {}"]).embed(backbone, tmp_path)
    Vocabulary(["blue square", "red"], ["{}", "a {}"]).embed(backbone, tmp_path)
    words.embed(backbones["Siglip2Model"], tmp_path)
    assert len(list(tmp_path.iterdir())) == 4 and not list(tmp_path.glob(".*"))
    monkeypatch.setattr(type(backbone), "text_embeds", None)
    assert torch.equal(words.embed(backbone, tmp_path), first)


def test_a_backbone_without_texts_names_by_labels(backbones):
    with pytest.raises(ValueError, match=r"Dinov2Model.*no text tower.*name_by_labels"):
        Vocabulary(["red"]).embed(backbones["Dinov2Model"])


def test_embeddings_are_not_lost_if_they_cannot_be_kept(backbones, tmp_path, monkeypatch):
    def full(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    backbone, words, warnings = backbones["SiglipModel"], Vocabulary(["red", "blue square"]), []
    expected = words.embed(backbone.text_embeds)
    monkeypatch.setattr(vocabulary.logger, "warning", lambda message, *_, **__: warnings.append(message))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        for _ in range(2):
            torch.testing.assert_close(words.embed(backbone, tmp_path / "full"), expected)
        assert list((tmp_path / "full").iterdir()) == []
    assert len(warnings) == 1 and str(tmp_path / "full") in warnings[0] and "No space left" in warnings[0]
    torch.testing.assert_close(words.embed(backbone, "/proc/nowhere"), expected)
    assert len(warnings) == 2 and "/proc/nowhere" in warnings[1]


@pytest.mark.parametrize("damage", [b"", b"half"])
def test_damaged_embeddings_are_computed_again(backbones, tmp_path, damage):
    backbone, words = backbones["SiglipModel"], Vocabulary(["red", "blue square"])
    first = words.embed(backbone, tmp_path)
    (file,) = tmp_path.iterdir()
    kept = file.read_bytes()
    file.write_bytes(damage)
    torch.testing.assert_close(words.embed(backbone, tmp_path), first)
    assert file.read_bytes() == kept


def test_only_what_is_one_list_of_words_is_taken_for_words():
    table = pd.DataFrame({"word": ["red", "star"], "count": [3, 2]})
    for words, named in ((table, "DataFrame: pass one of its columns"), ({"n01": "tench"}, "dict: pass list")):
        with pytest.raises(TypeError, match=named):
            Vocabulary(words)
    assert Vocabulary(table["word"]).words == ("red", "star")


def test_a_set_of_words_has_the_same_order_in_every_process():
    words = {f"word {number}" for number in range(50)}
    assert Vocabulary(words).words == tuple(sorted(words))


def test_a_text_file_may_have_the_line_ends_of_old_macs(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"red\rstar\rnight sky\r")
    assert Vocabulary.from_file(tmp_path / "words.txt").words == ("red", "star", "night sky")
