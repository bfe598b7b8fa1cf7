"""Results become tables and JSON, and come back from it."""

import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from hf_msae.statistics import Result


@dataclass(frozen=True)
class Found(Result):
    frame: pd.DataFrame = field(metadata={"key": "concepts"})
    score: float
    names: tuple[str, ...] = ()

    def verdict(self) -> str:
        return f"{len(self.frame)} found"


FOUND = Found(pd.DataFrame({"latent": [3, 4], "name": ["red", None], "value": [0.5, np.nan]}), np.float32(1.5), ("a",))


def test_a_result_is_a_table_a_dictionary_and_a_sentence():
    assert FOUND.to_dict() == {
        "concepts": [{"latent": 3, "name": "red", "value": 0.5}, {"latent": 4, "name": None, "value": None}],
        "score": 1.5,
        "names": ["a"],
    }
    table = FOUND.to_pandas()
    table["latent"] = 0
    assert FOUND.frame["latent"].tolist() == [3, 4], "a copy"
    assert str(FOUND) == "2 found"
    with pytest.raises(NotImplementedError, match="Found"):
        FOUND.plot()


def test_a_saved_result_comes_back(tmp_path):
    path = tmp_path / "folder" / "found.json"
    FOUND.save(path)
    loaded = Found.load(path)
    pd.testing.assert_frame_equal(loaded.frame, FOUND.frame, check_dtype=False)
    assert loaded.score == 1.5 and loaded.to_dict() == FOUND.to_dict()
    assert [each.name for each in path.parent.iterdir()] == ["found.json"]


@pytest.mark.parametrize(("content", "named"), [({"score": 1}, "concepts"), ([1], "list"), ("{", "Found")])
def test_what_is_no_saved_result_is_refused(tmp_path, content, named):
    path = tmp_path / "found.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=named):
        Found.load(path)
