"""A folder is searched up to a limit."""

import pytest

from hf_msae._utils import walking
from hf_msae.embeddings import load_embeddings
from hf_msae.hub import convert_checkpoint


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(walking, "MOST_FILES", 5)
    for folder in ("a", "b/c", ".hidden"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(3):
            (tmp_path / folder / f"{number}.txt").touch()
    return tmp_path


@pytest.mark.parametrize("read", [load_embeddings, convert_checkpoint])
def test_a_folder_of_too_many_files_is_refused_before_it_is_searched(home, read):
    with pytest.raises(ValueError, match=r"more than 5 files.*file of the (embeddings|checkpoint)") as error:
        read(home)
    assert str(home) in str(error.value)


def test_files_in_order_without_hidden_folders(home, monkeypatch):
    (home / "a" / "link").symlink_to(home / "nothing")
    monkeypatch.setattr(walking, "MOST_FILES", 6)
    found = walking.files_below(home, "it")
    assert [str(file.relative_to(home)) for file in found] == [
        f"{at}/{n}.txt" for at in ("a", "b/c") for n in range(3)
    ]
