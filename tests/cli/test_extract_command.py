"""`hf-msae extract`: what it says at the end."""

import pytest

from hf_msae.cli.extract import ExtractionArguments, main, next_flags
from hf_msae.cli.opening import ImageArguments
from hf_msae.embeddings import load_embeddings


@pytest.mark.parametrize(
    ("dataset", "split", "folder", "flag"),
    [
        ("scenes:train:20", None, "e/a", "--train_data"),
        ("scenes:test:20:3", None, "e/a", "--eval_data"),
        ("clipart:validation", None, "e/a", "--eval_data"),
        ("user/photos", "validation[:100]", "e/a", "--eval_data"),
        ("user/photos", "train", "e/latest", "--train_data"),
        ("photos/test", None, "e/a", "--eval_data"),
        ("photos", None, "e/celeba-test", "--eval_data"),
        ("contest/photos", None, "e/a", "--train_data"),
    ],
)
def test_a_test_split_is_suggested_for_evaluation(dataset, split, folder, flag):
    arguments = ExtractionArguments(backbone="scenes", dataset=dataset, split=split, output_dir=folder)
    assert f"{flag} {folder}" in next_flags(arguments)


def test_the_end_names_the_backbone_and_the_next_command(tmp_path, capsys):
    folder = tmp_path / "out"
    main(["--backbone", "scenes", "--dataset", "scenes:test:8", "--output_dir", str(folder), "--use_cpu",
          "--disable_tqdm"])  # fmt: skip
    printed = capsys.readouterr().out
    assert "Backbone(" not in printed and "hf_msae/scenes-siglip (SiglipModel)" in printed
    assert printed.rstrip().splitlines()[-1].startswith("Next: hf-msae train --train_data ")
    assert f"--eval_data {folder}" in printed


@pytest.mark.parametrize("number", [3, 1000])
def test_a_trial_embeds_rows_spread_over_the_dataset(place, tmp_path, number):
    flags = ["--backbone", "scenes", "--dataset", "scenes:test:8:3", "--max_rows", str(number)]
    main([*flags, "--output_dir", str(tmp_path / "trial"), "--disable_tqdm", "--use_cpu"])
    embeddings, rows = load_embeddings(tmp_path / "trial"), [0, 2, 5] if number == 3 else range(8)
    scenes = place.scenes["test"].select(rows)
    assert embeddings.dataset["caption"][:] == scenes["caption"][:]
    images = ImageArguments().open_images(embeddings)
    assert images["caption"][:] == scenes["caption"][:]
