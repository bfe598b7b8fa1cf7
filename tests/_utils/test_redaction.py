"""Paths of this machine are removed from what is published."""

import pytest

from hf_msae._utils.redaction import local_paths, public


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/me/runs/a", "a"),
        ("~/runs/a", "a"),
        ("C:\\Users\\me\\a", "a"),
        ("file:///home/me/a", "a"),
        ("parquet:/home/me/a.parquet", "parquet:a.parquet"),
        ("train.py --out /home/me/a --data=/data/b 'c'", "train.py --out a --data=b 'c'"),
        ({"a": ["/x/y", 1, None, True]}, {"a": ["y", 1, None, True]}),
        ("https://hub.org/user/name", "https://hub.org/user/name"),
        ("user/name", "user/name"),
        ("red/green and 1/2", "red/green and 1/2"),
        ("scenes:train:40:3", "scenes:train:40:3"),
    ],
)
def test_folders_of_this_machine_are_told_from_other_words(value, expected):
    assert public(value) == expected


def test_paths_into_folders_of_this_machine_are_found_in_a_text(tmp_path):
    text = f"It was in {tmp_path}/gone/a, [so]({tmp_path}). 1/2 and/or </div> /nowhere/at/all https://hf.co{tmp_path}"
    assert local_paths(text) == [str(tmp_path), f"{tmp_path}/gone/a"]
