"""benchmarks/pareto.py and design_choices.py, small; and how they compare."""

import sys

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset


@pytest.fixture
def data_flags(tmp_path):
    rng = np.random.default_rng(0)
    for name, rows in (("train", 240), ("test", 120)):
        codes = rng.uniform(size=(rows, 20)) * (rng.uniform(size=(rows, 20)) < 0.2)
        x = codes @ np.random.default_rng(1).normal(size=(20, 12)) + np.arange(12)
        kind = np.where(codes[:, 0] > 0, "with", "without")
        Dataset.from_dict({"image_embeds": x.tolist(), "kind": kind.tolist()}).save_to_disk(tmp_path / name)
    return [
        *("--train_data", str(tmp_path / "train"), "--eval_data", str(tmp_path / "test"), "--label_columns", "kind"),
        *("--num_latents", "32", "--steps", "8", "--batch_size", "50", "--seeds", "1", "2", "--use_cpu"),
        *("--output_dir", str(tmp_path / "out")),
    ]


def point(family, name, l0, fvu, cknna=0.5, seed=1):
    figures = {"l0": l0, "fvu": fvu, "cknna": cknna, "probe agreement": 0.9}
    return {"family": family, "point": name, "seed": seed, **figures}


def test_msaes_are_compared_at_the_l0_of_the_other(benchmark_module):
    pareto = benchmark_module("pareto")
    rows = [point("MSAE, reverse", "k=8", 8, 0.4, 0.2), point("MSAE, reverse", "k=32", 32, 0.1, 0.6)]
    rows += [point("TopK", "TopK@16", 16, 0.4), point("TopK", "TopK@64", 64, 0.01)]
    found = pareto.dominance(pd.DataFrame(rows)).set_index("point")
    # Half way between 8 and 32 on a logarithmic scale: FVU 0.2, CKNNA 0.4.
    assert found.loc["TopK@16", "FVU, ratio"] == "0.50"
    assert found.loc["TopK@16", "CKNNA, difference"] == "-0.100"
    assert found.loc["TopK@64", "FVU, ratio"] == "outside its curve"


def test_distinct_words_are_compared_at_the_l0_and_at_the_fvu_of_the_other(benchmark_module):
    pareto = benchmark_module("pareto")
    points = [("MSAE, reverse", 8, 0.4, 10), ("MSAE, reverse", 32, 0.1, 30), ("TopK", 16, 0.1, 5)]
    rows = [
        {**point(family, f"{family}@{l0}", l0, fvu), "true names": 2 * words, "distinct words": words}
        for family, l0, fvu, words in points
    ]
    (row,) = pareto.dominance(pd.DataFrame(rows)).to_dict("records")
    assert row["distinct true words, difference"] == "15.0" and row["true names, difference"] == "30.0"
    assert row["distinct true words at the same FVU, difference"] == "25.0"
    rows[2]["fvu"] = 0.5
    (row,) = pareto.dominance(pd.DataFrame(rows)).to_dict("records")
    assert row["distinct true words at the same FVU, difference"] == "outside its curve"


def test_msaes_are_compared_within_a_seed(benchmark_module):
    pareto = benchmark_module("pareto")
    rows = []
    for seed, scale in ((1, 1.0), (2, 10.0)):
        rows += [point("MSAE, reverse", f"k={l0}", l0, scale * 8 / l0, seed=seed) for l0 in (8, 32)]
        rows += [point("TopK", "TopK@16", 16, scale * 0.25, seed=seed)]
    rows += [point("TopK", "TopK@16", 99, 0.25, seed=3), point("MSAE, reverse", "k=8", 8, 1.0, seed=3)]
    (row,) = pareto.dominance(pd.DataFrame(rows)).to_dict("records")
    assert row["FVU, ratio"] == "2.00 (2.00 to 2.00), 2 of 3 seeds"


def test_learning_rates_are_tuned_on_rows_of_the_training_data_that_the_models_do_not_see(
    benchmark_module, tmp_path, monkeypatch
):
    from argparse import Namespace

    from hf_msae.embeddings import load_embeddings

    pareto = benchmark_module("pareto")
    train, test = (load_embeddings(np.random.default_rng(i).normal(size=(200, 4)).astype("f4")) for i in (0, 1))
    seen = {}

    def compare(arguments, variants, data, output_dir):
        seen.update(train=data.train[:], test=data.test[:], seeds=arguments.seeds)
        return pd.DataFrame(
            {"family": each.family, "learning_rate": each.learning_rate, "loss": abs(each.learning_rate - 3e-3)}
            for each in variants.values()
        )

    monkeypatch.setattr(pareto, "compare", compare)
    arguments = Namespace(num_latents=64, ks=[8, 16], learning_rates=[1e-3, 3e-3, 1e-2], seeds=[0, 1])
    rates = pareto.tune(arguments, pareto.Data(train, test), tmp_path)
    assert set(rates.values()) == {3e-3} and len(rates) == 8
    parts = np.concatenate([seen["train"], seen["test"]])
    assert (len(seen["train"]), len(seen["test"])) == (180, 20)
    assert sorted(map(tuple, parts)) == sorted(map(tuple, train[:].numpy()))  # each row once, none of the test data
    assert seen["seeds"] == [2]  # none that is reported


def test_stability_is_of_other_seeds_and_of_latents_that_are_alive(benchmark_module, tmp_path):
    import torch

    from hf_msae import MSAEConfig, MSAEModel

    comparison = benchmark_module("comparison")
    rows = []
    for seed, order in ((1, [0, 1, 2, 3]), (2, [1, 0, 3, 2])):
        model = MSAEModel(MSAEConfig(d_in=4, num_latents=4, nesting_ks=[4]))
        with torch.no_grad():
            model.decoder.copy_(torch.eye(4)[order])
        model.save_pretrained(tmp_path / f"seed-{seed}" / "a")
        # Directions 0 and 1 are alive in both; then 0 in the first and 1 in the second alone.
        np.save(tmp_path / f"seed-{seed}" / "a" / "alive-8.npy", np.array([True, True, False, False]))
        np.save(tmp_path / f"seed-{seed}" / "a" / "alive-16.npy", np.array([True, False, False, False]))
        rows += [{"variant": "a", "point": f"a, k={k}", "k": k, "seed": seed} for k in (8, 16)]
    values, chance = comparison.stability(pd.DataFrame(rows), tmp_path)
    assert values == pytest.approx([1.0, 0.0, 1.0, 0.0])
    assert all(each is not None for each in chance)
    alone = comparison.stability(pd.DataFrame(rows[:2]), tmp_path)
    assert alone == ([None, None], [None, None])


def test_latents_beyond_a_prefix_are_not_alive_in_it(benchmark_module):
    from hf_msae import MSAEConfig, MSAEModel
    from hf_msae.embeddings import load_embeddings

    comparison = benchmark_module("comparison")
    config = MSAEConfig(d_in=4, num_latents=8, activation="topk", k=2, nesting="prefix", nesting_widths=[4, 8])
    data = load_embeddings(np.random.default_rng(0).normal(size=(200, 4)).astype("f4"))
    whole, prefix = (comparison._alive(MSAEModel(config), data, k) for k in ("all", "first 4"))
    assert whole.tolist() == [True] * 8 and prefix.tolist() == [True] * 4 + [False] * 4


def test_means_and_spreads(benchmark_module):
    pareto = benchmark_module("pareto")
    rows = [point("TopK", "TopK@16", 16, fvu, seed=seed) for seed, fvu in enumerate((0.1, 0.2, 0.3))]
    (row,) = pareto.summary(pd.DataFrame(rows)).to_dict("records")
    assert (row["seeds"], row["FVU"], row["L0"]) == (3, "0.2000 (0.1000 to 0.3000)", "16.0")
    rows[1]["cknna"] = None
    (row,) = pareto.summary(pd.DataFrame(rows)).to_dict("records")
    assert row["CKNNA"] == "0.500 (0.500 to 0.500), 2 of 3 seeds"


def test_design_choices_are_relative_to_the_base_of_their_seed(benchmark_module):
    design = benchmark_module("design_choices")
    rows = [
        {"variant": name, "seed": seed, "k": k, "fvu": fvu * seed * (1 if k == 16 else 0.1)}
        for name, fvu in ((design.BASE, 0.4), ("tied", 0.8))
        for seed in (1, 2)
        for k in (16, "all")
    ]
    ratios = design.relative_fvu(pd.DataFrame(rows))
    assert ratios.xs("tied").tolist() == pytest.approx([2.0, 2.0])
    assert ratios.xs(design.BASE).tolist() == pytest.approx([1.0, 1.0])


def test_the_geometric_median_is_the_point_of_least_distance(benchmark_module):
    from hf_msae.embeddings import load_embeddings

    comparison = benchmark_module("comparison")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    x[:50] += 40  # outliers, which move the mean but hardly the median
    median = comparison.geometric_median(load_embeddings(x)).numpy()

    def distance(point):
        return np.linalg.norm(x - point, axis=1).sum()

    assert distance(median) < distance(x.mean(axis=0)) * 0.95
    assert all(distance(median) <= distance(median + 0.02 * step) for step in np.concatenate([np.eye(3), -np.eye(3)]))


def run(module, argv, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    module.run_reporting_errors(module.main)


@pytest.mark.slow
def test_every_family_is_compared_and_a_second_call_trains_nothing(
    benchmark_module, data_flags, tmp_path, monkeypatch, capsys
):
    argv = ["pareto.py", *data_flags, "--ks", "4", "8", "--learning_rates", "3e-3", "1e-2"]
    run(benchmark_module("pareto"), argv, monkeypatch)
    output = tmp_path / "out"
    table = pd.read_csv(output / "table.csv")
    assert set(table["seed"]) == {1, 2}
    families = {"MSAE, uniform", "MSAE, reverse", "MSAE, reverse, L1", "ReLU", "JumpReLU", "TopK", "BatchTopK"}
    assert set(table["family"]) == families | {"prefixes of BatchTopK"}
    topk = table[table["family"] == "TopK"]
    assert sorted(topk["l0"].round()) == [4, 4, 8, 8]
    assert set(table[table["family"] == "MSAE, uniform"]["k"]) == {"4", "8", "all"}
    prefixes = table[table["family"] == "prefixes of BatchTopK"]
    assert set(prefixes["k"]) == {"first 2", "first 4", "first 8", "first 16", "all"}
    fvu = prefixes.groupby("point")["fvu"].mean()
    assert fvu["prefixes of BatchTopK@4, first 4"] > fvu["prefixes of BatchTopK@4, first 16"] > 0
    assert table[["probe agreement", "stability", "cost", "cknna", "loss"]].notna().all(axis=None)
    assert table["cost"].min() == 1.0 and table["learning_rate"].isin([3e-3, 1e-2]).all()
    losses = pd.read_csv(output / "tuning.csv").set_index(["family", "learning_rate"])["loss"]
    for family, rate in table.groupby("family")["learning_rate"].first().items():
        assert losses[family, rate] == losses[family].min()
    assert (output / "pareto.png").stat().st_size > 10_000
    assert (output / "pareto.md").read_text().startswith("| point | seeds | L0 | FVU |")
    assert "outside" in (output / "dominance.md").read_text()

    capsys.readouterr()
    run(benchmark_module("pareto"), argv, monkeypatch)
    assert "training" not in capsys.readouterr().err
    assert pd.read_csv(output / "table.csv").equals(table)
    for changed, message in (
        (["--steps", "9"], "holds results with steps 8, not 9"),
        (["--learning_rates", "1e-4", "1e-3"], "holds results with .* lr 0.003"),
        (["--ks", "4", "64"], "TopK@64: k must be between 1 and num_latents=32, got 64"),
    ):
        with pytest.raises(SystemExit, match=message):
            run(benchmark_module("pareto"), [*argv, *changed], monkeypatch)
    (output / "seed-2.json").unlink()  # interrupted while it measured: the times of steps are still known
    run(benchmark_module("pareto"), argv, monkeypatch)
    assert pd.read_csv(output / "table.csv")["cost"].tolist() == pytest.approx(table["cost"].tolist())


@pytest.mark.slow
def test_every_design_choice_is_compared(benchmark_module, data_flags, tmp_path, monkeypatch):
    module = benchmark_module("design_choices")
    run(module, ["design_choices.py", *data_flags], monkeypatch)
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert set(table["variant"]) == set(module.variants(32, 1e-2))
    base, uncentred = (table[table["variant"] == name]["fvu"].tolist() for name in (module.BASE, "not centered"))
    assert base != uncentred
    assert (tmp_path / "out" / "design_choices.png").stat().st_size > 10_000
