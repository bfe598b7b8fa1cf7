"""Cards that were edited in a run or on the Hub stay as they are; a release renews their results."""

import shutil

import pytest
import torch
from huggingface_hub import ModelCard

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.hub import write_model_card
from hf_msae.hub.publishing.release import push_to_hub
from tests.hub.conftest import REPO, card_on_hub, commit_there, files_of, measure


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def edit_on_hub(hub, old, new):
    text = card_on_hub(hub)
    assert old in text
    commit_there(hub, {"README.md": text.replace(old, new).encode()})


@pytest.fixture
def card(published, run_folder):
    """The run's README.md, as it was generated and published."""
    (run_folder / "README.md").write_text(card_on_hub(published))
    return run_folder / "README.md"


def test_a_text_that_was_edited_on_the_hub_stays_and_its_results_are_renewed(published, run_folder):
    edit_on_hub(published, "## Use\n", "My own words.\n\n## Use\n")
    before = ModelCard(card_on_hub(published))
    measure(run_folder, rows=60)
    for _ in range(2):
        push_to_hub(run_folder, REPO)
        card = ModelCard(card_on_hub(published))
        assert card.text.split("<!--")[0] == before.text.split("<!--")[0]
        assert card.data.eval_results[0].metric_value != before.data.eval_results[0].metric_value
    push_to_hub(run_folder, REPO, replace_card=True)
    assert "My own words." not in card_on_hub(published) and "60 embeddings" in card_on_hub(published)


def test_what_was_edited_in_the_run_is_sent_and_may_be_edited_there_again(published, run_folder, card):
    edit(card, "## Use\n", "First words.\n\n## Use\n")
    push_to_hub(run_folder, REPO)
    assert "First words." in card_on_hub(published)
    edit(card, "First words.", "Second words.")
    push_to_hub(run_folder, REPO)
    assert "Second words." in card_on_hub(published) and "First words." not in card_on_hub(published)


def test_folders_of_this_machine_are_no_part_of_an_edited_card(tmp_path, caplog):
    run, backbone = tmp_path / "runs" / "a", tmp_path / "models" / "my-siglip"
    backbone.mkdir(parents=True)
    torch.manual_seed(0)
    MSAEModel(MSAEConfig(d_in=4, num_latents=8, base_model_name_or_path=str(backbone))).save_pretrained(run)
    card = write_model_card(run)
    edit(card, "## Use\n", f'Mine: `load("{backbone}")`.\n\n## Use\n')

    def pushed(run):
        push_to_hub(run, REPO, dry_run=tmp_path / "staged", allow_unmeasured=True)
        text = (tmp_path / "staged" / "README.md").read_text()
        shutil.rmtree(tmp_path / "staged")
        return text

    moved = run.rename(run.with_name("b"))
    text = pushed(moved)
    assert "Mine:" in text and str(tmp_path) not in text and str(run) not in caplog.text
    assert f'VisionTextMSAE.from_pretrained("{REPO}", backbone="path/to/my-siglip"' in text
    assert f'AutoModel.from_pretrained("{REPO}")' in text and 'load("path/to/my-siglip")' in text
    edit(moved / "README.md", "Mine:", f"It was in {run}. Mine:")
    assert str(run) in pushed(moved)
    assert f": {run}\n" in caplog.text


@pytest.mark.parametrize("pushed_between", [True, False])
def test_where_both_were_edited_a_person_has_to_choose(published, run_folder, card, pushed_between):
    edit_on_hub(published, "## Use\n", "Theirs.\n\n## Use\n")
    if pushed_between:  # the card on the Hub is now one that was pushed from here, but with their words
        (run_folder / "training_log.jsonl").write_text('{"step": 2}\n')
        push_to_hub(run_folder, REPO)
    edit(card, "## Use\n", "Mine.\n\n## Use\n")
    before = files_of(published)
    with pytest.raises(ValueError, match=r"README\.md .*tester/msae.*--replace_card"):
        push_to_hub(run_folder, REPO)
    assert files_of(published) == before
    if pushed_between:
        return
    card.write_text(card_on_hub(published))
    push_to_hub(run_folder, REPO)
    assert "Theirs." in card_on_hub(published)
    with pytest.warns(DeprecationWarning, match="replace_card"):
        push_to_hub(run_folder, REPO, card="fresh")
    assert "Theirs." not in card_on_hub(published) and "Mine." not in card_on_hub(published)
