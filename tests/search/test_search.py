"""A ConceptIndex finds what a direct computation finds, is continued, and is of one MSAE and one data set."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae._utils.fingerprint import model_fingerprint, weights_sha256
from hf_msae.concepts import ConceptTable
from hf_msae.concepts.codes import collect_codes
from hf_msae.concepts.collectors import SparseCodes, SparseCollector
from hf_msae.concepts.editing import LatentEdit, edit_embeddings
from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from hf_msae.search import ConceptIndex, ranking
from hf_msae.search import files as index_files
from hf_msae.search import index as search
from hf_msae.search.files import IndexMetadata

D, N, ROWS, K = 8, 40, 300, 6
X = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(0)) * 2 + 0.5
NAMES = ConceptTable.from_columns([f"n{i}" for i in range(N)], np.ones(N), [None] * N, np.zeros(N))


def make_model(seed=0):
    torch.manual_seed(seed)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=[4, N])).eval()
    model.set_input_statistics(X.mean(0), 0.6)
    return model


@pytest.fixture(scope="module", params=["one segment", "segments", "float16", "chosen rows"])
def index(request, tmp_path_factory):
    embeddings, folder = X.numpy(), tmp_path_factory.mktemp("indexes")
    if request.param in ("float16", "chosen rows"):
        dtype = "float16" if request.param == "float16" else "float32"
        with EmbeddingWriter(folder / "stored", {"image_embeds": D}, dtype=dtype, rows_per_shard=64) as writer:
            writer.write({"image_embeds": X.half().float()})
        embeddings = load_embeddings(folder / "stored")
        if request.param == "chosen rows":
            embeddings = load_embeddings(embeddings.dataset.select(range(ROWS - 1, -1, -1)))
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "segments":
            patch.setattr(search, "_SEGMENT_ROWS", 70)
        return ConceptIndex.build(folder / "index", make_model(), embeddings, K, NAMES, batch_size=33, progress=False)


def codes_of(index):
    with torch.no_grad():
        values, latents = index.msae.encode_topk(index.embeddings[:], K)
    return torch.zeros(len(index), N).scatter_(1, latents, values)


def test_by_embedding_is_the_cosine_of_every_row(index):
    query = torch.randn(D, generator=torch.Generator().manual_seed(1))
    cosines = torch.cosine_similarity(index.embeddings[:], query[None])
    found = index.by_embedding(query, top=12)
    assert found["row"].tolist() == cosines.argsort(descending=True)[:12].tolist()
    assert found["similarity"].to_numpy() == pytest.approx(cosines[found["row"].tolist()].numpy(), abs=1e-6)
    assert index.by_embedding(index.embeddings[17], top=1)["row"].tolist() == [17]
    assert len(index.by_embedding(query, top=10**6)) == ROWS


def test_concepts_are_mapped_to_weights(index):
    for concepts in (["n1"], "n1", {"n1", "n2"}):
        with pytest.raises(ValueError, match=r"concepts must map .* to values, as \{'red': 0.5\}; got .*n1"):
            index.by_concepts(concepts)
    expected = index.by_concepts({"n1": 1.0, 2: -0.5})
    pd.testing.assert_frame_equal(index.by_concepts(pd.Series([1.0, -0.5], index=["n1", 2])), expected)


def test_what_cannot_be_searched_for_is_refused(index):
    for value in (np.nan, np.inf):
        for search_for in (index.by_embedding, lambda bad: index.by_change(X[0], bad)):
            with pytest.raises(ValueError, match="the embedding holds NaN or infinite values"):
                search_for(torch.full((D,), value))
    for top in (None, 2.0, 0):
        for found in (
            lambda top: index.by_embedding(X[0], top),
            lambda top: index.by_concepts({1: 1.0}, top),
            lambda top: index.by_edit(X[0], {1: 0.0}, top=top),
        ):
            with pytest.raises(ValueError, match=f"top must be an integer of at least 1, got {top}"):
                found(top)


def test_what_is_no_table_of_names_is_refused_before_anything_is_indexed(tmp_path):
    with pytest.raises(TypeError, match="concepts must be a ConceptTable, got DataFrame"):
        ConceptIndex.build(tmp_path / "index", make_model(), X, K, NAMES.frame)
    assert not (tmp_path / "index").exists()


def test_arrays_and_numbers_of_numpy_do(tmp_path):
    index = ConceptIndex.build(tmp_path / "index", make_model(), X, np.int64(K), NAMES, progress=False)
    for given in (X[0].numpy(), X[0].numpy().astype(">f4"), X[0].tolist()):
        assert index.by_embedding(given).equals(index.by_embedding(X[0]))
        assert index.by_edit(given, {"n3": 2.0}).equals(index.by_edit(X[0], {"n3": 2.0}))
        assert index.by_change(given, X[1].numpy()).equals(index.by_change(X[0], X[1]))


def test_by_concepts_is_the_weighted_sum_of_activations(index):
    codes = codes_of(index).numpy()
    typical = codes.sum(axis=0) / np.maximum((codes > 0).sum(axis=0), 1)
    weights = {"n3": 1.0, 7: 2.0, np.int64(11): -0.5}
    expected = sum(w * codes[:, j] / typical[j] for j, w in ((3, 1.0), (7, 2.0), (11, -0.5)))
    found = index.by_concepts(weights, top=15)
    assert found["score"].to_numpy() == pytest.approx(np.sort(expected)[::-1][:15], rel=5e-3)
    assert found["score"].to_numpy() == pytest.approx(expected[found["row"]], rel=5e-3)
    for wrong, named in (({"m3": 1.0}, "'m3'"), ({}, "concepts"), ({2: 1.0, 3: np.nan}, "3 is nan")):
        with pytest.raises(ValueError, match=named):
            index.by_concepts(wrong)


def test_by_edit_searches_for_the_edited_embedding(index):
    x = index.embeddings[5]
    latent = int(codes_of(index)[5].argmax())
    found = index.by_edit(x, {latent: 0.0}, top=8)
    changed = edit_embeddings(index.msae, x[None], [LatentEdit.of({latent: 0.0}, N)])[0]
    after, before = (torch.cosine_similarity(index.embeddings[:], each[None]) for each in (changed, x))
    ranks = {
        name: cos.argsort(descending=True).argsort() + 1 for name, cos in (("rank", after), ("rank_before", before))
    }
    expected = {row for rank in ranks.values() for row in (rank <= 8).nonzero().flatten().tolist()}
    assert set(found["row"]) == expected and found["rank"].is_monotonic_increasing
    assert found["rank_before"][found["row"] == 5].item() == 1
    for name, rank in ranks.items():
        assert found[name].tolist() == rank[found["row"].tolist()].tolist()
    assert (found["rank_change"] == found["rank_before"] - found["rank"]).all() and found["rank_change"].any()
    same = index.by_edit(x, {latent: 1.0}, top=8)
    assert (same["rank_change"] == 0).all() and len(same) == 8


@pytest.mark.parametrize("values", [3, 30, 10**6])
def test_ranks_are_those_of_a_stable_sort_of_all_rows(values):
    rng = np.random.default_rng(values)
    for rows, top in ((1, 1), (2, 1), (50, 7), (500, 10), (500, 499), (40, 60)):
        after, before = (rng.integers(0, values, rows).astype(np.float32) / values for _ in range(2))
        ranks = []
        for scores in (after, before):
            order = np.argsort(-scores, kind="stable")
            ranks.append(np.empty(rows, dtype=np.int64))
            ranks[-1][order] = np.arange(1, rows + 1)
            assert ranking.best_rows(scores, top).tolist() == order[:top].tolist()
            some = rng.permutation(rows)[:20]
            assert ranking.ranks_of(some, scores).tolist() == ranks[-1][some].tolist()
        expected = np.flatnonzero((ranks[0] <= top) | (ranks[1] <= top))
        expected = expected[np.argsort(ranks[0][expected])]
        found = ranking.rank_changes(after, before, top)
        assert found["row"].tolist() == expected.tolist()
        assert found["similarity"].tolist() == after[expected].tolist()
        assert found["similarity_before"].tolist() == before[expected].tolist()
        assert found["rank"].tolist() == ranks[0][expected].tolist()
        assert found["rank_before"].tolist() == ranks[1][expected].tolist()
        assert found["rank_change"].tolist() == (ranks[1] - ranks[0])[expected].tolist()


def test_codes_and_what_two_rows_share(index):
    codes = codes_of(index)
    found = index.code(250)
    assert found["latent"].tolist() == codes[250].argsort(descending=True)[: len(found)].tolist()
    assert found["activation"].to_numpy() == pytest.approx(codes[250][found["latent"].tolist()].numpy(), rel=1e-3)
    assert found["name"].tolist() == [f"n{latent}" for latent in found["latent"]]
    of_all, few = index.sparse_codes(), len(found)
    assert of_all.values.shape == of_all.indices.shape == (len(index), K)
    assert of_all.indices[250, :few].tolist() == found["latent"].tolist()
    assert of_all.values[250, :few].tolist() == found["activation"].tolist() and not of_all.values[250, few:].any()
    shared = index.shared(250, 3)
    assert set(shared["latent"]) == set(((codes[250] > 0) & (codes[3] > 0)).nonzero().flatten().tolist())
    weaker = shared[["activation", "activation_other"]].min(axis=1)
    assert weaker.is_monotonic_decreasing
    with pytest.raises(IndexError, match="row 300"):
        index.code(300)


def test_an_index_is_loaded_and_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_SEGMENT_ROWS", 64)
    model = make_model()
    written = []
    original = index_files.write_segment
    monkeypatch.setattr(
        search, "write_segment", lambda target, *rest: (written.append(target.name), original(target, *rest))
    )
    whole = ConceptIndex.build(tmp_path / "whole", model, X.numpy(), K, progress=False)
    part = ConceptIndex.build(tmp_path / "index", model, X[:128].numpy(), K, progress=False)
    assert len(part) == 128
    (tmp_path / "index" / "segment-00002").mkdir()  # as a build that was killed may leave
    del written[:]
    grown = ConceptIndex.build(tmp_path / "index", model, X.numpy(), K, progress=False)
    assert written == ["segment-00002", "segment-00003", "segment-00004"] and len(grown) == ROWS
    loaded = ConceptIndex(tmp_path / "index", model, X.numpy())
    for query in ({3: 1.0}, {4: 1.0, 9: -1.0}):
        pd.testing.assert_frame_equal(loaded.by_concepts(query), whole.by_concepts(query))
    assert not list((tmp_path / "index").glob(".*"))
    with pytest.raises(ValueError, match="other embeddings"):
        ConceptIndex.build(tmp_path / "index", model, np.concatenate([X[:9] + 1, X, X]), K, progress=False)
    assert len(ConceptIndex(tmp_path / "index", model, X.numpy())) == ROWS, "nothing was added"


def test_an_index_with_the_fingerprint_of_v0_1_opens_and_goes_on(tmp_path):
    model, folder = make_model(), tmp_path / "index"
    ConceptIndex.build(folder, model, X[:200].numpy(), K, progress=False)
    metadata = IndexMetadata.load(folder)
    assert metadata.msae_sha256 == model_fingerprint(model)
    metadata.msae_sha256 = weights_sha256(model)
    metadata.save(folder)
    assert len(ConceptIndex(folder, model, X.numpy())) == 200
    assert len(ConceptIndex.build(folder, model, X.numpy(), K, progress=False)) == ROWS
    assert IndexMetadata.load(folder).msae_sha256 == model_fingerprint(model)


def test_what_does_not_belong_together_is_refused(tmp_path):
    model, folder, x = make_model(), tmp_path / "index", X.numpy()
    index = ConceptIndex.build(folder, model, x, K, progress=False)
    for arguments, error, named in (
        ((folder, make_model(1), x), ValueError, "another MSAE"),
        ((folder, model, x[::-1]), ValueError, r"row \d+ of the given array.*another folder"),
        ((folder, model, x[:10]), ValueError, r"300 rows.*10"),
        ((tmp_path, model, x), FileNotFoundError, r"index\.json.*build"),
    ):
        with pytest.raises(error, match=named):
            ConceptIndex(*arguments)
    for arguments, named in (
        ((folder, model, x, 7), r"k \(6, not 7\)"),
        ((folder, make_model(1), x, K), "msae_sha256"),
        ((tmp_path / "b", model, x[:, :5]), r"5 columns.*8"),
        ((tmp_path / "b", model, x, 41), r"40.*41"),
    ):
        with pytest.raises(ValueError, match=named):
            ConceptIndex.build(*arguments, progress=False)
    for embedding, top, named in ((torch.zeros(D), 10, "zero"), (X[0], 0, r"top.*0"), (X[0, :3], 10, r"\(3,\)")):
        with pytest.raises(ValueError, match=named):
            index.by_embedding(embedding, top=top)
    (folder / "segment-00000" / "values.npy").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"values\.npy.*another folder"):
        ConceptIndex(folder, model, x)


def test_other_rows_of_the_same_lengths_are_noticed(tmp_path):
    """Lengths cannot tell embeddings of unit length apart."""
    unit = torch.nn.functional.normalize(X, dim=1).numpy()
    ConceptIndex.build(tmp_path / "index", make_model(), unit, K, progress=False)
    other = unit.copy()
    other[1:-1] = other[1:-1][::-1]
    with pytest.raises(ValueError, match=r"row \d+.*another folder"):
        ConceptIndex.build(tmp_path / "index", make_model(), other, K, progress=False)


def test_codes_at_hand_are_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_SEGMENT_ROWS", 64)
    model = make_model()
    (codes,) = collect_codes(model, X, [SparseCollector(K + 2)], progress=False)
    expected = ConceptIndex.build(tmp_path / "encoded", model, X, K, progress=False)
    index = ConceptIndex.build(tmp_path / "index", model, X, K, progress=False, codes=codes)
    for row in (0, 70, ROWS - 1):
        pd.testing.assert_frame_equal(index.code(row), expected.code(row))
    with pytest.raises(ValueError, match=f"10 rows.*{ROWS}"):
        ConceptIndex.build(tmp_path / "b", model, X, K, progress=False, codes=codes[:10])


def test_old_names_still_work(tmp_path):
    with pytest.warns(DeprecationWarning, match=r"acts.*embeddings"):
        index = ConceptIndex.build(tmp_path / "index", make_model(), acts=X, k=K, progress=False)
    with pytest.warns(DeprecationWarning, match=r"acts.*embeddings"):
        assert index.acts is index.embeddings


def test_a_folder_that_holds_something_else_is_not_written_to(tmp_path):
    mine = tmp_path / "segment-00000" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    with pytest.raises(FileExistsError, match="segment-00000"):
        ConceptIndex.build(tmp_path, make_model(), X.numpy(), K, progress=False)
    assert mine.read_text() == "years of work" and [file.name for file in tmp_path.iterdir()] == ["segment-00000"]
    IndexMetadata(model_fingerprint(make_model()), N, D, K).save(tmp_path)  # a killed build, and a folder put into it
    with pytest.raises(FileExistsError, match="segment-00000"):
        ConceptIndex.build(tmp_path, make_model(), X.numpy(), K, progress=False)
    assert mine.read_text() == "years of work"
    with pytest.raises(FileNotFoundError, match="mistyped"):
        ConceptIndex.build(tmp_path / "mistyped" / "a" / "index", make_model(), X.numpy(), K, progress=False)


def test_an_index_whose_build_was_interrupted_at_once_says_so(tmp_path):
    IndexMetadata(model_fingerprint(make_model()), N, D, K).save(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}.*interrupted.*build"):
        ConceptIndex(tmp_path, make_model(), X)
    assert len(ConceptIndex.build(tmp_path, make_model(), X, K, progress=False)) == ROWS


def test_an_index_of_some_of_the_rows_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(search, "_SEGMENT_ROWS", 70)
    ConceptIndex.build(tmp_path, make_model(), X[:140].numpy(), K, progress=False)
    assert len(ConceptIndex(tmp_path, make_model(), X)) == 140
    assert f"140 of the {ROWS} rows" in caplog.text and "ConceptIndex.build" in caplog.text
    caplog.clear()
    assert len(ConceptIndex.build(tmp_path, make_model(), X, K, progress=False)) == ROWS
    ConceptIndex(tmp_path, make_model(), X)
    assert caplog.text == "", "neither while it is built, nor afterwards"


@pytest.mark.parametrize("there", [0, 140])
def test_refused_data_leave_no_half_index(tmp_path, monkeypatch, there):
    monkeypatch.setattr(search, "_SEGMENT_ROWS", 70)
    if there:
        ConceptIndex.build(tmp_path, make_model(), X[:there].numpy(), K, progress=False)
    before = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    damaged = X.clone()
    damaged[280, 3] = np.nan
    with pytest.raises(ValueError, match=r"row 280 of the given array.*NaN"):
        ConceptIndex.build(tmp_path, make_model(), damaged.numpy(), K, progress=False)
    after = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert after == before and len(before) == (13 if there else 0)


def test_an_index_is_kept_for_this_process_if_the_cache_cannot_be_written_to(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path / "file" / "cache"))  # the superuser ignores permissions
    folders = {index_files.default_folder(make_model(), load_embeddings(X[:n].numpy()), K) for n in (100, 100)}
    (folder,) = folders
    assert len(ConceptIndex.build(folder, make_model(), X[:100].numpy(), K, progress=False)) == 100
    assert tmp_path not in folder.parents and [file.name for file in tmp_path.iterdir()] == ["file"]


def test_opening_a_segment_reads_a_part_at_a_time(tmp_path):
    rows, k, latents = 100_000, 8, 50
    generator = np.random.default_rng(0)
    values = generator.random((rows, k), dtype=np.float32).astype(np.float16)
    chosen = (generator.integers(latents, size=(rows, 1)) + np.arange(k)) % latents
    codes = SparseCodes(torch.from_numpy(values.astype(np.float32)), torch.from_numpy(chosen))
    index_files.write_segment(tmp_path / "segment", codes, np.ones(rows, np.float32), latents)
    tracemalloc.start()
    segment = index_files.Segment(tmp_path / "segment", rows, IndexMetadata("", latents, D, k))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(segment.of_latent_values)
    expected = np.bincount(chosen.ravel(), values.ravel().astype(np.float64), latents)
    np.testing.assert_allclose(segment.sums, expected, rtol=1e-12)
