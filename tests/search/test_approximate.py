"""Approximate searches find most of what exact ones do, with exact similarities, or refuse; exact ones do without."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from hf_msae.search import ConceptIndex, approximate
from hf_msae.search import index as search

D, N, ROWS, SEGMENT = 32, 64, 4000, 1500


def make_embeddings(rows, seed):
    """Off center, in clusters of unequal spread, some directions stronger than others."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centers = fixed.normal(size=(40, D)) + 0.7
    x = centers[rng.integers(0, 40, rows)] + rng.normal(size=(rows, D)) * rng.choice([0.5, 2.0], (rows, 1))
    return (x * np.linspace(2, 0.3, D)).astype(np.float32)


X, QUERIES = make_embeddings(ROWS, 1), torch.from_numpy(make_embeddings(40, 2))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=[8, N])).eval()


@pytest.fixture(scope="module", autouse=True)
def small_segments():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_SEGMENT_ROWS", SEGMENT)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory, model):
    pytest.importorskip("faiss")
    return ConceptIndex.build(tmp_path_factory.mktemp("built"), model, X, 4, progress=False, approximate=True).folder


@pytest.fixture
def index(built, tmp_path, model):
    """One of its own for each test, which may damage it."""
    return ConceptIndex(shutil.copytree(built, tmp_path / "index"), model, X)


def recall(index):
    found = [
        (set(index.by_embedding(query, approximate=True)["row"]), set(index.by_embedding(query)["row"]))
        for query in QUERIES
    ]
    return float(np.mean([len(some & best) / len(best) for some, best in found]))


def test_most_of_the_nearest_rows_are_found_and_their_similarities_are_exact(index):
    assert (
        len(index.approximate) == ROWS and index.approximate.metadata.lists == 100 and index.approximate.probes == 25
    )
    usual = recall(index)
    assert usual > 0.95
    for query in QUERIES[:5]:
        cosines = torch.cosine_similarity(torch.from_numpy(X), query[None]).numpy()
        found = index.by_embedding(query, top=7, approximate=True)
        assert len(found) == 7 and found["similarity"].is_monotonic_decreasing
        assert found["similarity"].to_numpy() == pytest.approx(cosines[found["row"]], abs=1e-6)
        rows = index.approximate.candidates(torch.nn.functional.normalize(query, dim=0), 30)
        assert len(rows) == 500 and (np.diff(rows) > 0).all()
    index.approximate.probes = 1
    few = recall(index)
    index.approximate.probes = 10**6
    assert few < usual < recall(index)


def test_chosen_rows_of_half_precision_are_found_by_their_place(tmp_path, model):
    pytest.importorskip("faiss")
    with EmbeddingWriter(tmp_path / "embeddings", {"image_embeds": D}, dtype="float16", rows_per_shard=512) as writer:
        writer.write({"image_embeds": torch.from_numpy(X).half().float()})
    chosen = np.random.default_rng(3).permutation(ROWS)[:3000]
    embeddings = load_embeddings(load_embeddings(tmp_path / "embeddings").dataset.select(chosen))
    index = ConceptIndex.build(tmp_path / "index", model, embeddings, 4, progress=False, approximate=True)
    assert recall(index) > 0.95
    for place in (0, SEGMENT + 1, 2999):
        found = index.by_embedding(torch.from_numpy(X[chosen[place]]), top=2, approximate=True)
        assert found["row"][0] == place and found["similarity"][0] == pytest.approx(1, abs=1e-5)


def test_all_rows_are_found_where_all_are_asked_for(index):
    query, everything = QUERIES[0], 10**6
    found = [index.by_embedding(query, everything, approximate) for approximate in (True, False)]
    pd.testing.assert_frame_equal(*found)
    for top, probes, named in ((0, 5, r"top.*0"), (10, 0, r"probes.*0")):
        index.approximate.probes = probes
        with pytest.raises(ValueError, match=named):
            index.by_embedding(query, top, approximate=True)


def test_an_edit_ranks_the_rows_that_were_found(index, monkeypatch):
    monkeypatch.setattr(approximate, "_FEWEST_CANDIDATES", 200)
    unknown = 0
    for query in QUERIES[:8]:
        latent = int(index.msae.encode(query[None])[0].argmax())
        found = index.by_edit(query, {latent: 6.0}, top=5, approximate=True)
        exact = index.by_edit(query, {latent: 6.0}, top=ROWS).set_index("row").loc[found["row"]].reset_index()
        for what in ("similarity", "similarity_before"):
            assert found[what].to_numpy() == pytest.approx(exact[what].to_numpy(), abs=1e-6)
        for what in ("rank", "rank_before"):
            assert found[what].dtype == "Int64" and found[what].max() <= 200
            known = found[what].notna()
            assert (found[what][known] <= exact[what][known]).all()
            assert (exact[what][~known] > 200).all()
            unknown += (~known).sum()
        assert ((found["rank"] <= 5) | (found["rank_before"] <= 5)).all() and len(found) >= 5
        assert found["rank_change"].equals(found["rank_before"] - found["rank"])
    assert unknown > 0
    monkeypatch.setattr(approximate, "_FEWEST_CANDIDATES", ROWS)
    exact = index.by_edit(query, {latent: 6.0}, top=5)
    ranks = {what: "Int64" for what in ("rank", "rank_before", "rank_change")}
    pd.testing.assert_frame_equal(index.by_edit(query, {latent: 6.0}, top=5, approximate=True), exact.astype(ranks))


def test_rows_that_are_added_go_to_the_lists_there_are(tmp_path, model):
    pytest.importorskip("faiss")
    ConceptIndex.build(tmp_path / "index", model, X[:SEGMENT], 4, progress=False, approximate=True)
    folder = tmp_path / "index" / "approximate"
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.faiss")}
    assert set(before) == {"trained.faiss", "segment-00000.faiss"}
    grown = ConceptIndex.build(tmp_path / "index", model, X, 4, progress=False)
    with pytest.raises(ValueError, match=r"1500 of 4000.*add_approximate"):
        grown.by_embedding(QUERIES[0], approximate=True)
    grown.add_approximate(progress=False)
    assert len(grown.approximate) == ROWS and recall(grown) > 0.95
    after = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.faiss")}
    assert after.items() > before.items() and len(after) == 4
    for row in (0, SEGMENT, ROWS - 1):
        assert grown.by_embedding(torch.from_numpy(X[row]), top=1, approximate=True)["row"].tolist() == [row]


def test_a_build_that_was_killed_goes_on(index, tmp_path, model, monkeypatch):
    original = os.replace

    def killed(source, target):
        if str(target).endswith("segment-00001.faiss"):
            raise KeyboardInterrupt
        original(source, target)

    folder = tmp_path / "other" / "approximate"
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ConceptIndex.build(tmp_path / "other", model, X, 4, progress=False, approximate=True)
    monkeypatch.setattr(os, "replace", original)
    assert {file.name for file in folder.glob("[!.]*.faiss")} == {"trained.faiss", "segment-00000.faiss"}
    other = ConceptIndex(tmp_path / "other", model, X)
    with pytest.raises(ValueError, match="1500 of 4000"):
        other.by_embedding(QUERIES[0], approximate=True)
    other.add_approximate(progress=False)
    assert not list(folder.glob(".*"))
    assert other.approximate.metadata == index.approximate.metadata  # with the hashes of all files


def test_the_seed_decides(index, tmp_path, model):
    other = ConceptIndex.build(tmp_path / "other", model, X, 4, progress=False)
    other.add_approximate(seed=1, progress=False)
    hashes = [each.approximate.metadata.trained_sha256 for each in (index, other)]
    assert hashes[0] != hashes[1] and recall(other) > 0.95
    for wanted in ({"seed": 0}, {"lists": 5}):
        (what, value), *_ = wanted.items()
        with pytest.raises(ValueError, match=rf"{what}=\d+, not {value}.*delete"):
            other.add_approximate(**wanted, progress=False)
    with pytest.raises(ValueError, match=r"4000.*4001"):
        other.add_approximate(lists=4001, progress=False)
    shutil.rmtree(other.folder / "approximate")  # as the messages say
    other.add_approximate(lists=5, progress=False)
    assert other.approximate.metadata.lists == 5


def _truncate(folder):
    file = folder / "segment-00001.faiss"
    file.write_bytes(file.read_bytes()[:-100])


def _swap(folder):
    shutil.copy(folder / "segment-00000.faiss", folder / "segment-00001.faiss")


def _change_json(change):
    def damage(folder):
        content = json.loads((folder / "approximate.json").read_text())
        change(content)
        (folder / "approximate.json").write_text(json.dumps(content))

    return damage


WAY_OUT = r".*delete .*approximate.*add_approximate"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (_truncate, r"segment-00001\.faiss" + WAY_OUT),
        (_swap, r"segment-00001\.faiss" + WAY_OUT),
        (lambda folder: (folder / "segment-00002.faiss").unlink(), r"segment-00002\.faiss" + WAY_OUT),
        (lambda folder: (folder / "approximate.json").write_text('{"width": 32'), r"approximate\.json is damaged"),
        (_change_json(lambda content: content["parts"][0].pop("lengths_sha256")), r"approximate\.json" + WAY_OUT),
        (_change_json(lambda content: content.update(parts=3)), r"approximate\.json" + WAY_OUT),
        (_change_json(lambda content: content.update(format_version=2)), "newer hf_msae.*2"),
    ],
)
def test_what_is_damaged_is_refused(index, model, what, message):
    what(index.folder / "approximate")
    opened = ConceptIndex(index.folder, model, X)
    with pytest.raises(ValueError, match=message):
        opened.by_embedding(QUERIES[0], approximate=True)
    assert len(opened.by_embedding(QUERIES[0])) == 10


def test_an_approximate_index_of_other_embeddings_is_refused(index, tmp_path, model):
    other = ConceptIndex.build(tmp_path / "other", model, X[::-1].copy(), 4, progress=False)
    with pytest.raises(FileNotFoundError, match=r"approximate\.json.*add_approximate"):
        other.by_embedding(QUERIES[0], approximate=True)
    shutil.copytree(index.folder / "approximate", other.folder / "approximate")
    for use in (lambda: other.approximate, lambda: other.add_approximate(progress=False)):
        with pytest.raises(ValueError, match="other embeddings" + WAY_OUT):
            use()


def test_without_faiss_exact_search_works_and_approximate_search_says_what_to_install(tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = ConceptIndex.build(tmp_path / "index", model, X[:100], 4, progress=False)
    assert len(index.by_embedding(QUERIES[0])) == 10
    for use in (index.add_approximate, lambda: index.by_embedding(QUERIES[0], approximate=True)):
        with pytest.raises(ImportError, match=r"hf_msae\[ann\]"):
            use()


READER = """
import {first}
import sys
import numpy as np, torch
from hf_msae import MSAEModel
from hf_msae.search import ConceptIndex
index = ConceptIndex(sys.argv[1], MSAEModel.from_pretrained(sys.argv[2]), sys.argv[3])
query = torch.from_numpy(np.load(sys.argv[4]))
print(*index.by_embedding(query, approximate=True)["row"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["faiss", "torch"])
def test_another_process_finds_the_same(index, tmp_path, model, first):
    model.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "query.npy", QUERIES[3].numpy())
    files = [str(tmp_path / name) for name in ("index", "model", "x.npy", "query.npy")]
    command = [sys.executable, "-c", READER.format(first=first), *files]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = index.by_embedding(QUERIES[3], approximate=True)
    assert [int(row) for row in run.stdout.split()] == expected["row"].tolist()
