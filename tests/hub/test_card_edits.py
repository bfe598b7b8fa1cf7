"""What people change in a card survives all that is written later, and what they leave alone is renewed."""

import itertools
import logging
import random

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_msae.hub.publishing.card_edits import RESULTS_TASK, agree_on_licence, assemble_card, is_edited, merge_card

NAMES = ("summary", "quality", "concepts", "limits")


def results(fvu, name="my-msae"):
    return [
        {
            "name": name,
            "results": [
                {
                    "task": {"type": "feature-extraction", "name": RESULTS_TASK},
                    "dataset": {"name": "held-out", "type": "embeddings"},
                    "metrics": [{"type": "fvu", "value": fvu, "name": "fvu at k=8"}],
                }
            ],
        }
    ]


def card(version, names=NAMES, **metadata):
    """A generated card; every section tells the version it is of."""
    metadata = {
        "library_name": "hf_msae",
        "license": "apache-2.0",
        "tags": ["msae", "sparse-autoencoder"],
        "model-index": results(version / 10),
        **metadata,
    }
    sections = {name: f"## {name}\n\n| figure |\n|---|\n| {name} of version {version} |" for name in names}
    return assemble_card({key: value for key, value in metadata.items() if value is not None}, sections)


def data_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_a_fresh_card_merges_into_itself_and_counts_as_unedited():
    fresh = card(1)
    assert merge_card(fresh, fresh) == fresh and not is_edited(fresh)
    assert merge_card(card(2), fresh) == card(2), "what nobody has touched is renewed as a whole"
    loaded = ModelCard(fresh)
    assert loaded.data.license == "apache-2.0" and loaded.data.eval_results[0].metric_value == 0.1


def test_the_comments_stand_on_lines_of_their_own_with_empty_lines_inside():
    lines = card(1).splitlines()
    for place, line in enumerate(lines):
        if line.startswith("<!-- hf_msae:") and "generated" not in line:
            assert lines[place + 1] == "" and lines[place - 1] == ""
        if line.startswith("<!-- /hf_msae:"):
            assert lines[place - 1] == ""


def test_an_edited_section_survives_two_pushes_with_other_figures(caplog):
    edited = card(1).replace("| summary of version 1 |", "| my own words |")
    assert is_edited(edited)
    with caplog.at_level(logging.WARNING):
        once = merge_card(card(2), edited)
    assert "section 'summary' of the card was edited" in caplog.text
    twice = merge_card(card(3), once)
    for text, version in ((once, 2), (twice, 3)):
        assert "| my own words |" in text and "summary of version" not in text
        assert all(f"{name} of version {version} |" in text for name in ("quality", "concepts", "limits"))
        assert data_of(text)["model-index"][0]["results"][0]["metrics"][0]["value"] == version / 10


def test_an_edited_section_of_figures_stays_while_they_hold_and_is_an_earlier_note_afterwards(caplog):
    edited = card(1).replace("| quality of version 1 |", "| quality of version 1, and my note |")
    assert merge_card(card(1), edited) == edited
    with caplog.at_level(logging.WARNING):
        once = merge_card(card(2), edited)
    assert "section 'quality' of the card was edited, and what it is about has changed" in caplog.text
    twice = merge_card(card(3), once)
    for text, version in ((once, 2), (twice, 3)):
        assert merge_card(card(version), text) == text
        own, others = text.split("### Earlier note")[0], text.split("### Earlier note")[1]
        assert f"| quality of version {version} |" in own and "my note" not in own
        assert others.count("> | quality of version 1, and my note |") == 1
        assert others.index("my note") < others.index("concepts of version")
    copied = edited + card(1)[card(1).index("<!-- hf_msae:quality") : card(1).index("<!-- hf_msae:concepts")]
    merged = merge_card(card(2), copied)
    assert merged.count("\n| quality of version 2 |") == 1 and "my note" in merged


def test_the_licence_is_that_of_the_metadata_whoever_has_changed_it():
    def render(told_license="apache-2.0"):
        metadata = {"license": "apache-2.0", "tags": ["msae"]}
        return assemble_card(metadata, {"licence": f"## Licence\n\n`{told_license}`", "limits": "## Limits"})

    theirs = render().replace("license: apache-2.0", "license: cc-by-nc-4.0")
    for _ in range(2):
        theirs = agree_on_licence(lambda fresh: merge_card(fresh, theirs), render)  # noqa: B023 (called at once)
        assert data_of(theirs)["license"] == "cc-by-nc-4.0" and "`cc-by-nc-4.0`" in theirs and "apache" not in theirs
    ours = agree_on_licence(lambda fresh: merge_card(fresh, theirs, ("license",)), render)
    assert data_of(ours)["license"] == "apache-2.0" and "`apache-2.0`" in ours and not is_edited(ours)
    none = agree_on_licence(lambda fresh: merge_card(fresh, render().replace("license: apache-2.0\n", "")), render)
    assert "license" not in data_of(none) and "apache" not in none
    noted = theirs.replace("`cc-by-nc-4.0`", "`cc-by-nc-4.0`, ask me first")
    noted = agree_on_licence(lambda fresh: merge_card(fresh, noted, ("license",)), render)
    assert "> `cc-by-nc-4.0`, ask me first" in noted and "\n`apache-2.0`" in noted


def test_text_beside_the_sections_stays_where_it_is():
    own = "\n## My notes\n\nAsk me, at any time.\n\n"
    edited = card(1).replace("<!-- /hf_msae:quality -->\n", f"<!-- /hf_msae:quality -->\n{own}")
    edited = edited.replace("<!-- hf_msae:generated", "Above all.\n\n<!-- hf_msae:generated") + "\nThe end."
    assert is_edited(edited)
    merged = merge_card(card(2), edited)
    assert f"<!-- /hf_msae:quality -->\n{own}\n<!-- hf_msae:concepts" in merged
    assert merged.index("Above all.") < merged.index("summary of version 2") and merged.endswith("\nThe end.")
    assert "version 1" not in merged


def test_a_deleted_section_stays_deleted_and_a_new_one_finds_its_place():
    existing = card(1, ("summary", "quality", "limits"))
    begin, end = existing.index("<!-- hf_msae:quality"), existing.index("<!-- hf_msae:limits")
    without = existing[:begin] + existing[end:]
    assert is_edited(without)
    merged = merge_card(card(2), without)
    assert "quality of version" not in merged
    assert merged.index("summary of") < merged.index("concepts of") < merged.index("limits of")
    again = merge_card(card(3), merged)
    assert "quality of version" not in again and again.count("concepts of version 3") == 1


def test_a_section_that_is_no_longer_generated_goes_unless_it_was_edited():
    fewer = card(2, ("summary", "quality"))
    merged = merge_card(fewer, card(1))
    assert merged == fewer
    assert merge_card(card(3), merged) == card(3), "it was not deleted by anybody, so it comes back"
    kept = merge_card(fewer, card(1).replace("limits of version 1", "my limits"))
    assert "my limits" in kept and "concepts of" not in kept


def test_metadata_of_people_stays_and_ours_is_renewed():
    edited = card(1).replace("license: apache-2.0", "license: mit  # as agreed\nlanguage: en")
    edited = edited.replace("- msae\n", "- msae\n- birds\n")
    assert is_edited(edited)
    merged = merge_card(
        card(2, library_name="hf_msae2", pipeline_tag="feature-extraction", tags=["msae", "new"]), edited
    )
    for text in (merged, merge_card(card(3), merged)):
        data = data_of(text)
        assert data["license"] == "mit" and data["language"] == "en"
        assert set(data["tags"]) >= {"msae", "birds", "new", "sparse-autoencoder"}
    assert data_of(merged)["library_name"] == "hf_msae2", "nobody has changed it"
    assert data_of(merged)["pipeline_tag"] == "feature-extraction", "new, so nobody can have deleted it"
    untouched = merge_card(card(1), edited)
    assert "license: mit  # as agreed" in untouched, "the writer's comment stays where nothing has to change"


def test_a_deleted_value_stays_deleted():
    edited = card(1).replace("license: apache-2.0\n", "")
    merged = merge_card(card(2), edited)
    assert "license" not in data_of(merged) and "license" not in data_of(merge_card(card(3), merged))
    assert data_of(merged)["model-index"] == results(0.2)


def test_results_of_others_stay_beside_ours():
    other = {
        "task": {"type": "zero-shot"},
        "dataset": {"name": "d", "type": "d"},
        "metrics": [{"type": "acc", "value": 1}],
    }
    mixed = results(0.1)
    mixed[0]["results"].append(other)
    mixed.append({"name": "elsewhere", "results": [other]})
    edited = card(1).replace(
        yaml.safe_dump({"model-index": results(0.1)}, sort_keys=False),
        yaml.safe_dump({"model-index": mixed}, sort_keys=False),
    )
    assert data_of(edited)["model-index"] == mixed
    merged = data_of(merge_card(card(2), edited))["model-index"]
    assert merged == [{"name": "my-msae", "results": [*results(0.2)[0]["results"], other]}, mixed[1]]
    unmeasured = data_of(merge_card(card(2, **{"model-index": None}), edited))["model-index"]
    assert unmeasured == [{"name": "my-msae", "results": [other]}, mixed[1]]


@pytest.mark.parametrize("front", ["", "---\nlicense: mit\ntags:\n- birds\n---\n"])
def test_a_card_without_our_comments_keeps_its_text_and_gets_the_metadata_it_lacks(front):
    body = "# My model\n\n[More Information Needed]\n\n---\n\nFor <!-- a comment --> all.\n"
    merged = merge_card(card(1), front + body)
    assert body in merged and merged.count("# My model") == 1
    data = data_of(merged)
    assert data["license"] == ("mit" if front else "apache-2.0") and data["library_name"] == "hf_msae"
    assert set(data["tags"]) == ({"birds"} if front else set()) | {"msae", "sparse-autoencoder"}
    assert is_edited(front + body) and merge_card(card(1), merged) == merged


def test_a_card_without_our_comments_gets_the_figures_once_and_keeps_them_away_if_they_are_deleted():
    merged = merge_card(card(1), "# My model\n\nNo end of line")
    assert merged.index("No end of line\n") < merged.index("quality of version 1 |")
    assert not any(f"{name} of version" in merged for name in NAMES if name != "quality")
    later = merge_card(card(2), merged)
    assert later.count("quality of version 2 |") == 1 and "version 1" not in later and "summary of" not in later
    begin, end = later.index("<!-- hf_msae:quality"), later.index("<!-- /hf_msae:quality -->\n")
    without = later[:begin] + later[end + len("<!-- /hf_msae:quality -->\n") :]
    assert "quality of version" not in merge_card(card(3), without)


def test_line_endings_and_blanks_of_editors_are_no_edits():
    existing = card(1).replace("\n", "\r\n")
    assert not is_edited(existing)
    assert merge_card(card(2), existing) == card(2).replace("\n", "\r\n")
    assert not is_edited(card(1).replace("| figure |\n", "| figure |  \n"))


def test_metadata_that_is_no_yaml_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"is not valid YAML: .*; mend it, or delete the file"):
        merge_card(card(1), card(1).replace("license: apache-2.0", "license: [a"))
    with pytest.raises(ValueError, match="is list, not 'key: value' lines"):
        merge_card(card(1), "---\n- a\n---\n")


def lines_that_must_stay(text):
    """All but the comments: each a line of its own that is found again."""
    lines = (line.removeprefix("> ") for line in text.splitlines())  # quoted is not lost
    return [line for line in lines if line.startswith("mine ")]


def mutations(number, seed):
    """Cards as hasty people leave them: lines pasted, deleted and doubled anywhere, comments among them."""
    random_ = random.Random(seed)
    for step in range(number):
        head, body = card(1).split("<!-- hf_msae:generated", 1)
        lines = f"<!-- hf_msae:generated{body}".splitlines(keepends=True)
        for change in range(random_.randint(1, 4)):
            place = random_.randrange(len(lines) + 1)
            kind = random_.choice(("insert", "delete", "double", "double block", "delete block"))
            if kind == "insert" or place == len(lines):
                lines.insert(place, f"mine {step} {change}\n")
            elif kind == "delete":
                del lines[place]
            elif kind == "double":
                lines.insert(random_.randrange(len(lines) + 1), lines[place])
            elif kind == "double block":
                at = random_.randrange(len(lines) + 1)
                lines[at:at] = lines[place : place + random_.randint(1, 12)]
            else:
                del lines[place : place + random_.randint(1, 12)]
            if not lines:
                lines = ["mine alone\n"]
        yield head + "".join(lines)


@pytest.mark.parametrize("seed", range(5))
def test_merging_is_idempotent_and_loses_no_line_of_anybody_whatever_was_done_to_the_card(seed):
    for edited in mutations(40, seed):
        merged = merge_card(card(2), edited)
        assert merge_card(card(2), merged) == merged
        later = merge_card(card(3, ("summary", "quality")), merge_card(card(4), merged))
        for text in (merged, later):
            assert lines_that_must_stay(text) == lines_that_must_stay(edited)
            assert ModelCard(text).data.library_name == "hf_msae"


def test_comments_pasted_twice_or_left_open_lose_no_text():
    whole = card(1)
    begin, end = whole.index("<!-- hf_msae:quality"), whole.index("<!-- hf_msae:concepts")
    section = whole[begin:end]
    twice = whole[:end] + section.replace("quality of version 1", "my copy") + whole[end:]
    merged = merge_card(card(2), twice)
    assert "quality of version 2" in merged and "my copy" in merged
    unclosed = whole.replace("<!-- /hf_msae:quality -->\n", "").replace("quality of version 1", "my figure")
    merged = merge_card(card(2), unclosed)
    assert merged.count("my figure") == 1 and merged.count("quality of version 2") == 1
    assert merge_card(card(2), merged) == merged
    unopened = "\n".join(line for line in whole.split("\n") if not line.startswith("<!-- hf_msae:quality"))
    assert "quality of version 1" in merge_card(card(2), unopened)


def test_the_first_comment_may_be_lost():
    text = "\n".join(line for line in card(1).split("\n") if "hf_msae:generated" not in line)
    merged = merge_card(card(2), text)
    assert "quality of version 2" in merged and data_of(merged)["license"] == "apache-2.0"
    begin, end = text.index("<!-- hf_msae:quality"), text.index("<!-- hf_msae:concepts")
    assert "quality of version" not in merge_card(card(2), text[:begin] + text[end:])


def test_every_order_of_sections_keeps_its_order():
    for names in itertools.permutations(NAMES):
        merged = merge_card(card(2), card(1, names))
        places = [merged.index(f"{name} of version 2") for name in names]
        assert places == sorted(places)
