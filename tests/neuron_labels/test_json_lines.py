import pytest

from hf_msae.neuron_labels.json_lines import JsonLines


def test_records_come_back_in_order(tmp_path):
    lines = JsonLines(tmp_path / "log.jsonl")
    for number in range(3):
        lines.append({"number": number, "text": "a\nb \u2028"})
    assert [record["number"] for record in JsonLines(tmp_path / "log.jsonl").records] == [0, 1, 2]


@pytest.mark.parametrize("cut", [1, 5, 13])
def test_a_record_that_was_cut_off_is_dropped_and_overwritten(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    JsonLines(path).append({"number": 0})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number": 1}\n'[:cut])
    lines = JsonLines(path)
    assert lines.records == [{"number": 0}]
    lines.append({"number": 2})
    assert JsonLines(path).records == [{"number": 0}, {"number": 2}]
    assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"number": 0}\n', "log.jsonl has the format None, .* reads 2"),
        ('{"format": 7}\n{"number": 0}\n', "log.jsonl has the format 7, .* reads 2"),
        *((f'{{"format": 2}}\n{line}\n{{"number": 1}}\n', "line 2") for line in ("{", "[1]", "\x00\x00")),
    ],
)
def test_files_of_another_format_and_damaged_lines_are_refused(tmp_path, content, said):
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=said):
        JsonLines(path, version=2)
    assert path.read_text() == content
