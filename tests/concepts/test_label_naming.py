"""Names from label columns: planted truth, missing values, chance, rare labels and what is refused."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import ConceptTable, label_naming, name_by_labels
from hf_msae.concepts.labels import Labels
from hf_msae.concepts.row_labels import MIN_ROWS, read_labels, stratified_half
from hf_msae.embeddings import load_embeddings

ROWS, D = 600, 6
KINDS = np.array(["ant", "bee", "cow"])


@pytest.fixture(scope="module")
def msae():
    """Latent j is coordinate j."""
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=D, nesting_ks=[D])).eval()
    with torch.no_grad():
        model.encoder.copy_(torch.eye(D))
        model.decoder.copy_(torch.eye(D))
        model.pre_bias.zero_()
        model.latent_bias.zero_()
    return model


@pytest.fixture(scope="module")
def data():
    """Coordinates: a flag, its absence, one kind of three, a side, noise, and one that is never positive."""
    rng = np.random.default_rng(0)
    flag, kind, left = rng.random(ROWS) < 0.3, rng.integers(0, 3, ROWS), rng.random(ROWS) < 0.5
    told = np.stack([flag, ~flag, kind == 1, left, np.zeros(ROWS), np.full(ROWS, -9)], axis=1)
    x = told + 0.2 * np.abs(rng.normal(size=(ROWS, D)))
    unknown = np.arange(ROWS) < 100
    columns = {
        "flag": [None if gone else bool(value) for gone, value in zip(unknown, flag, strict=True)],
        "number": [float("nan") if gone else float(value) for gone, value in zip(unknown, flag, strict=True)],
        "kind": ["" if gone else KINDS[number] for gone, number in zip(unknown, kind, strict=True)],
        "side": np.where(left, 0, 1),
        "again": np.where(kind == 1, "bee", "none"),
        "rare": np.arange(ROWS) % 60 == 0,
        "amount": rng.random(ROWS),
        "count": np.arange(ROWS) % 5,
        "chance": rng.random(ROWS) < 0.5,
    }
    features = Features(
        image_embeds=Sequence(Value("float32"), length=D),
        flag=Value("bool"),
        number=Value("float64"),
        kind=Value("string"),
        side=ClassLabel(names=["left", "right"]),
        again=Value("string"),
        rare=Value("bool"),
        amount=Value("float32"),
        count=Value("int64"),
        chance=Value("bool"),
    )
    return load_embeddings(Dataset.from_dict({"image_embeds": x.tolist(), **columns}, features=features))


def test_p_values_are_of_the_rows_that_did_not_choose(msae, data):
    frame = name_by_labels(msae, data, ["chance", "flag"], seed=3).to_pandas()
    held_out = stratified_half(read_labels(data, ["chance", "flag"]), 3)
    with torch.no_grad():
        latents = msae.encode(data[:]).numpy()
    flags = np.array(data.dataset["flag"], dtype=object)
    true, false = (latents[held_out & (flags == which), 0] for which in (True, False))
    assert frame["p_value"][0] == mannwhitneyu(true, false, alternative="greater", method="asymptotic").pvalue > 0
    assert frame["num_positive"][0] == len(true)


def test_every_latent_gets_the_label_that_it_detects(msae, data, tmp_path):
    table = name_by_labels(msae, data, ["flag", "kind", "side"])
    frame = table.to_pandas()
    assert frame["name"].dropna().to_dict() == {0: "flag", 1: "not flag", 2: "bee", 3: "left"}
    assert frame["polarity"].tolist() == [1, -1, 1, 1, 0, 0] and frame["label"][1] == "flag"
    assert frame["validated"].tolist() == [True] * 4 + [False] * 2
    assert frame["q_value"][4:].tolist() == [1, 1] and frame["auroc"][4:].isna().all()
    assert table.evidence == "labels" and table.best()["auroc_low"].is_monotonic_decreasing
    assert table.latent_of("not flag") == 1 and Labels(table)(1).validated
    table.save(tmp_path / "labels.parquet")
    again = ConceptTable.load(tmp_path / "labels.parquet")
    assert again.validated()["latent"].tolist() == table.validated()["latent"].tolist()
    assert again.provenance["labels"] == ["flag", "ant", "bee", "cow", "left", "right"]


@pytest.mark.parametrize("column", ["flag", "number"])
def test_figures_are_of_known_rows_that_did_not_choose_the_name(msae, data, column):
    row = name_by_labels(msae, data, [column], seed=3).frame.loc[0]
    tested = stratified_half(read_labels(data, [column]), 3) & (np.arange(ROWS) >= 100)
    true = np.array(data.dataset["flag"])[tested].astype(bool)
    assert row["name"] == column
    assert row["auroc"] == pytest.approx(roc_auc_score(true, data[:].numpy()[tested, 0]), abs=1e-9)
    assert (row["num_positive"], row["num_negative"]) == (true.sum(), (~true).sum())
    assert row["auroc_low"] < row["auroc"] <= row["auroc_high"]


def test_the_same_value_in_two_columns_is_told_apart(msae, data):
    table = name_by_labels(msae, data, ["kind", "again"])
    assert {"kind: bee", "again: bee", "ant"} <= set(table.provenance["labels"])
    row = table.frame.loc[2]
    assert {row["name"], row["runner_up"]} == {"kind: bee", "again: bee"} and row["runner_up_auroc"] > 0.9


def test_labels_of_chance_name_nothing_that_is_validated(msae, data):
    for seed in range(3):
        assert name_by_labels(msae, data, ["chance"], seed).validated().empty


def test_rare_labels_are_reported_with_their_rows(msae, data):
    with pytest.warns(UserWarning, match=r"'rare' of rare \(10\)"):
        table = name_by_labels(msae, data, ["rare", "flag"])
    assert table.provenance["left_out"] == {"rare": 10} and table.provenance["labels"] == ["flag"]
    with pytest.raises(ValueError, match=r"'rare' of rare \(10\)"):
        name_by_labels(msae, data, ["rare"])
    with pytest.raises(ValueError, match="how many of 1 rows"):
        name_by_labels(msae, load_embeddings(data.dataset.select([0])), ["rare"])


@pytest.mark.parametrize("seed", range(5))
def test_both_halves_have_half_of_the_rows_of_a_rare_label(seed):
    rng = np.random.default_rng(seed)
    number = 1001
    rare, common = rng.permutation(number) < 2 * MIN_ROWS, rng.random(number) < 0.4
    kind = np.where(rng.permutation(number) < 2 * MIN_ROWS, "ant", np.where(common, "bee", ""))
    kind[0] = "once"
    columns = {"common": common, "rare": rare, "nearly_all": ~rare[::-1], "kind": kind}
    data = load_embeddings(Dataset.from_dict({"image_embeds": rng.normal(size=(number, 3)).tolist(), **columns}))
    labels = read_labels(data, list(columns))
    half = stratified_half(labels, seed)
    assert half.sum() == number // 2
    counts = {
        label.name: (label.counts(np.flatnonzero(half)), label.counts(np.flatnonzero(~half))) for label in labels
    }
    for name, (tested, chose) in counts.items():
        for one, other in zip(tested, chose, strict=True):
            assert name == "once" or abs(one - other) <= 2 + 0.1 * (one + other), counts
    assert (stratified_half(labels, seed) == half).all() and (stratified_half(labels, seed + 1) != half).any()


def test_chunks_do_not_change_the_result(msae, data, monkeypatch):
    whole = name_by_labels(msae, data, ["flag", "kind"]).frame
    monkeypatch.setattr(label_naming, "_CHUNK_ENTRIES", 2 * ROWS)
    assert name_by_labels(msae, data, ["flag", "kind"], batch_size=70).frame.equals(whole)


def test_the_table_says_which_columns_were_read(msae, data, tmp_path):
    for columns in ((name for name in ["flag", "kind"]), np.array(["flag", "kind"])):
        table = name_by_labels(msae, data, columns, seed=np.int64(1))
        table.save(tmp_path / "concepts.parquet")
        assert ConceptTable.load(tmp_path / "concepts.parquet").provenance["label_columns"] == ["flag", "kind"]


def test_what_is_no_label_is_refused(msae, data, monkeypatch):
    with pytest.raises(ValueError, match=r"columns.*'flag'.*pass \['flag'\]"):
        name_by_labels(msae, data, "flag")
    with pytest.raises(ValueError, match="no column"):
        name_by_labels(msae, data, [])
    for column, pattern in (("amount", "'amount'.*float"), ("count", "'count'.*0, 1, 2"), ("typo", "'typo'.*flag")):
        with pytest.raises(ValueError, match=pattern):
            name_by_labels(msae, data, [column])
    monkeypatch.setattr("hf_msae.concepts.row_labels.MOST_CLASSES", 2)
    with pytest.raises(ValueError, match=r"'kind'.*3 different"):
        name_by_labels(msae, data, ["kind"])


def test_copies_of_a_row_are_in_the_same_half(msae):
    """Copies of the rows that chose a label would confirm it, and change its AUROC."""
    few = torch.randn(120, D, generator=torch.Generator().manual_seed(9))
    label = (few[:, 0] + 0.3 * few[:, 1] > 0).tolist()
    both = [
        name_by_labels(
            msae, load_embeddings(Dataset.from_dict({"image_embeds": x.tolist(), "chance": truth})), ["chance"], seed=2
        ).frame.loc[0]
        for x, truth in ((few, label), (few.repeat(8, 1), label * 8))
    ]
    assert both[0]["auroc"] == pytest.approx(both[1]["auroc"], abs=1e-9)
    assert both[1]["num_positive"] == 8 * both[0]["num_positive"]


def test_rows_are_copied_once_for_each_column_not_for_each_label(msae, data, monkeypatch):
    """With a thousand classes and a million rows, each copy of all rows for a label took a thousandth of 10 GB."""
    given = []
    monkeypatch.setattr(
        label_naming, "stratified_half", lambda labels, seed: given.extend(labels) or stratified_half(labels, seed)
    )
    name_by_labels(msae, data, ["kind", "side"])
    assert sum(each.nbytes for each in {id(label.classes): label.classes for label in given}.values()) == 2 * 8 * ROWS


@pytest.mark.parametrize("values", [("False", "True"), ("no", "yes"), ("0", "1"), ("FALSE", "TRUE")])
def test_true_and_false_as_text_are_one_label_with_the_name_of_the_column(values):
    truth = np.arange(40) % 2
    columns = {"image_embeds": np.eye(40), "night": ["", *(values[true] for true in truth[1:])]}
    (label,) = read_labels(load_embeddings(Dataset.from_dict(columns)), ["night"])
    assert label.name == "night" and label.truth(np.arange(40)).tolist() == [-1, *truth[1:]]
