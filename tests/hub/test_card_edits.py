"""A text that a person has edited stays as it is; what nobody has touched is generated anew."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard, RepoCard

from hf_msae.hub.publishing.card_edits import RESULTS_TASK, finish_card, is_edited, update_card

V0_1 = Path(__file__).parents[1] / "compatibility" / "v0_1" / "run" / "README.md"


def index(value, task=RESULTS_TASK, name="m"):
    metrics = [{"type": "fvu", "value": value, "name": "fvu"}]
    dataset = {"type": "embeddings", "name": "birds"}
    return {"name": name, "results": [{"task": {"type": "x", "name": task}, "dataset": dataset, "metrics": metrics}]}


def render(value=0.5, **metadata):
    """Returns what `update_card` calls: a function that renders a card, given its license."""

    def renders(license=None):
        license = "apache-2.0" if license is None else license
        data = {"library_name": "hf_msae", "license": license or None, "tags": ["msae"], "model-index": [index(value)]}
        data = {key: each for key, each in {**data, **metadata}.items() if each is not None}
        return finish_card(data, f"# Title\n\nFVU {value}, license {license or 'none'}.\n\n## Use\n\nSo.")

    return renders


CARD = render()()


def test_an_untouched_card_is_generated_anew_whatever_editors_do_to_its_blanks():
    for card in (CARD, CARD.replace(".\n", ".  \n"), CARD.replace("\n", "\r\n"), CARD.rstrip(), "", None):
        assert card is None or is_edited(card) == (card == "")
        updated = update_card(card, render(0.25, tags=["new"]))
        assert "FVU 0.25" in updated and RepoCard(updated).data.tags == ["new"] and not is_edited(updated)


@pytest.mark.parametrize(
    "change", [("So.", "So. Mine."), ("# Title\n", "Mine.\n\n# Title\n"), ("## Use\n\nSo.", "Mine.")]
)
def test_an_edited_text_stays_and_its_results_are_renewed(change, caplog):
    edited = CARD.replace(*change)
    assert is_edited(edited)
    updated = edited
    for _ in range(2):
        updated = update_card(updated, render(0.25, tags=["new"]), name="the card")
        text = RepoCard(updated).text
        assert "Mine." in text and "FVU 0.5" in text and "0.25" not in text and is_edited(updated)
        assert text.split("<!--")[0] == RepoCard(edited).text.split("<!--")[0], "not a character of it changes"
        assert ModelCard(updated).data.eval_results[0].metric_value == 0.25
        assert RepoCard(updated).data.tags == ["new"], "nobody has edited the metadata"
        assert update_card(updated, render(0.25, tags=["new"])) == updated
    assert "the card" in caplog.text and "--replace_card" in caplog.text
    assert update_card(updated, render(0.25), replace=True) == render(0.25)()


def test_an_edit_that_is_taken_back_is_none():
    kept = update_card(CARD.replace("So.", "Mine."), render(0.25))
    assert "FVU 0.75" in update_card(kept.replace("Mine.", "So."), render(0.75))


def test_edited_metadata_stay_and_the_text_is_generated_anew():
    theirs = index(7, task="theirs")["results"] + index(0.5)["results"]
    card = RepoCard(CARD)
    card.data["language"], card.data["tags"] = "en", ["birds"]
    card.data["model-index"] = [{"name": "m", "results": theirs}, index(8, task="other", name="n")]
    updated = RepoCard(update_card(str(card), render(0.25, pipeline_tag="feature-extraction")))
    assert "FVU 0.25" in updated.text and updated.data.language == "en" and updated.data.tags == ["birds", "msae"]
    assert updated.data.pipeline_tag == "feature-extraction"
    ours, others = updated.data["model-index"]
    assert [each["metrics"][0]["value"] for each in ours["results"]] == [0.25, 7] and others["name"] == "n"
    unmeasured = RepoCard(update_card(str(updated), render(0.25, **{"model-index": None})))
    assert [each["metrics"][0]["value"] for entry in unmeasured.data["model-index"] for each in entry["results"]] == [
        7,
        8,
    ]


@pytest.mark.parametrize("theirs", ["mit", "", ["mit", "cc0-1.0"]])
def test_text_and_metadata_name_the_license_that_a_person_has_chosen(theirs):
    card = RepoCard(CARD)
    card.data["license"] = theirs or None
    updated = str(card)
    for _ in range(2):
        updated = update_card(updated, render(0.25))
        shown = ", ".join(theirs) if isinstance(theirs, list) else theirs
        assert RepoCard(updated).data.get("license", "") == theirs and f"license {shown or 'none'}." in updated
    updated = update_card(updated, render(0.25), license="cc-by-4.0")
    assert RepoCard(updated).data.license == "cc-by-4.0" and "license cc-by-4.0." in updated


@pytest.mark.parametrize("front", ["", "---\nlicense: mit\ntags: [birds]\n---\n"])
@pytest.mark.parametrize("text", ["# Mine\n\nAll of it.\n", ""])
def test_a_card_of_a_person_keeps_its_text_and_gets_the_metadata_it_lacks(front, text):
    updated = RepoCard(update_card(front + text, render()))
    assert updated.text == text if text else "FVU 0.5" in updated.text
    assert updated.data.license == ("mit" if front else "apache-2.0") and updated.data.library_name == "hf_msae"
    assert updated.data.tags == (["birds", "msae"] if front else ["msae"])
    again = RepoCard(update_card(str(updated), render(0.25)))
    assert again.data.license == updated.data.license and again.data["model-index"][0] == index(0.25)


def test_line_ends_of_windows_stay():
    updated = update_card(CARD.replace("So.", "Mine.").replace("\n", "\r\n"), render(0.25))
    assert updated.count("\r\n") == updated.count("\n")


@pytest.mark.parametrize("front", ["- a\n- b", "a: [", "a: b: c"])
def test_metadata_that_cannot_be_read_are_named(front):
    with pytest.raises(ValueError, match=r"metadata of my/README\.md"):
        update_card(f"---\n{front}\n---\n# Mine\n", render(), name="my/README.md")


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("", "", False),
        ("## Licence\n", "## Licence\n\nMine.\n", True),
        ("<!-- hf_msae:limits", "Mine.\n\n<!-- hf_msae:limits", True),
        ("<!-- /hf_msae:citation -->", "<!-- /hf_msae:citation -->\n\nMine.", True),
    ],
)
def test_cards_of_v0_1_are_recognized(old, new, kept):
    """They have a hash for every section."""
    card = V0_1.read_text().replace(old, new, 1) if old else V0_1.read_text()
    assert is_edited(card) == kept
    updated = update_card(card, render())
    assert ("Mine." in updated) == kept == ("FVU 0.5" not in updated)
    assert ModelCard(updated).data.eval_results[0].metric_value == 0.5


def test_a_deleted_section_of_v0_1_is_an_edit():
    before, rest = V0_1.read_text().split("<!-- hf_msae:limits", 1)
    assert is_edited(before + rest.split("<!-- /hf_msae:limits -->\n", 1)[1])
