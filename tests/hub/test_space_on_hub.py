"""The explorer as a Space: what it consists of, and that it is published in one commit with its variables."""

import os
import subprocess
import sys
import textwrap
from importlib.metadata import version

import pytest
import yaml

from hf_msae.cli.push_space import main
from hf_msae.explorer import ExplorerSettings
from hf_msae.hub.publishing.space import push_space, space_variables, write_space
from tests.hub.conftest import commit_there
from tests.stub_hub import READ_TOKEN

KEY = ("space", "tester/concepts")
SETTINGS = ExplorerSettings(model="user/msae", dataset="user/pictures", split="train", embeddings="user/embeds")


def metadata(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_a_space_has_the_app_the_package_and_metadata_that_name_what_it_shows(tmp_path):
    folder = write_space(tmp_path / "space", SETTINGS, title="Birds")
    found = metadata(folder)
    assert found["sdk"] == "gradio" and found["app_file"] == "app.py" and found["title"] == "Birds"
    assert found["models"] == ["user/msae"] and found["datasets"] == ["user/pictures", "user/embeds"]
    assert "# Birds" in (folder / "README.md").read_text()
    assert (folder / "hf_msae/scenes/msae/scenes-image/model.safetensors").is_file()
    assert not list(folder.rglob("__pycache__"))
    required = (folder / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("torch") for line in required) and not any("gradio" in line for line in required)


def test_a_link_that_leaves_the_app_is_not_sent(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "data.json").symlink_to(tmp_path / "secret")
    monkeypatch.setattr("hf_msae.hub.publishing.space.app_folder", lambda: tmp_path / "app")
    with pytest.raises(ValueError, match=r"data\.json is a link to .*secret"):
        write_space(tmp_path / "space", SETTINGS, requirement="hf_msae")


def test_with_a_requirement_the_package_is_not_sent(tmp_path):
    folder = write_space(tmp_path / "space", ExplorerSettings(), requirement="hf_msae==0.1.0")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    assert "hf_msae==0.1.0" in (folder / "requirements.txt").read_text().splitlines()
    assert "models" not in metadata(folder) and metadata(folder)["sdk_version"] == version("gradio")


def test_settings_are_variables_and_nothing_of_this_machine_is(tmp_path):
    assert space_variables(ExplorerSettings()) == {}
    assert space_variables(SETTINGS) == {
        "MSAE_MODEL": "user/msae",
        "MSAE_DATASET": "user/pictures",
        "MSAE_SPLIT": "train",
        "MSAE_EMBEDDINGS": "user/embeds",
    }
    assert ExplorerSettings.from_environment(space_variables(SETTINGS)) == SETTINGS
    for local in (str(tmp_path), "./there", "~/there"):
        with pytest.raises(ValueError, match=r"is on this machine.*hf-msae demo"):
            space_variables(ExplorerSettings(model=local))
    for given in ({"edits": "outputs/edits"}, {"swordbench": "outputs/swordbench"}):
        with pytest.raises(ValueError, match=next(iter(given.values()))):
            space_variables(ExplorerSettings(**given))
    with pytest.raises(ValueError, match=r"concepts=.* is on this machine"):
        space_variables(ExplorerSettings(concepts=str(tmp_path)))
    assert space_variables(ExplorerSettings(verify=False)) == {"MSAE_VERIFY": "False"}
    assert space_variables(ExplorerSettings(concepts="words")) == {"MSAE_CONCEPTS": "words"}
    for elsewhere in ("path/to/images", "nothing like it", "clipart:test"):
        with pytest.raises(ValueError, match=f"{elsewhere}.* user/name"):
            space_variables(ExplorerSettings(dataset=elsewhere))
    assert space_variables(ExplorerSettings(model="scenes-image", dataset="scenes:test:50")) == {
        "MSAE_DATASET": "scenes:test:50"
    }
    assert space_variables(ExplorerSettings(model="clipart-image")) == {"MSAE_MODEL": "clipart-image"}
    assert space_variables(ExplorerSettings("user/msae", "clipart:sample", backbone="clipart")) == {
        "MSAE_MODEL": "user/msae",
        "MSAE_DATASET": "clipart:sample",
        "MSAE_BACKBONE": "clipart",
    }
    assert space_variables(ExplorerSettings("user/msae", embeddings="user/embeds")) == {
        "MSAE_MODEL": "user/msae",
        "MSAE_EMBEDDINGS": "user/embeds",
    }
    with pytest.raises(ValueError, match=r"user/msae.*dataset"):
        space_variables(ExplorerSettings(model="user/msae"))


def test_it_is_published_in_one_commit_and_renewed(at_hub, tmp_path, monkeypatch):
    package = tmp_path / "hf_msae"  # with fewer files than the real one
    for name in ("explorer/app.py", "cli/__init__.py"):
        (package / name).parent.mkdir(parents=True)
        (package / name).write_text("")
    monkeypatch.setattr("hf_msae.hub.publishing.space._PACKAGE", package)
    url = push_space("tester/concepts", SETTINGS, private=True)
    repo = at_hub.repos[KEY]
    assert url == f"{at_hub.url}/spaces/tester/concepts" and repo.private
    assert repo.messages == ["initial commit", "Show concepts"]
    assert repo.variables == space_variables(SETTINGS)
    assert {"app.py", "README.md", "requirements.txt", "hf_msae/explorer/app.py"} <= set(repo.files())
    mine = {"hf_msae/mine.py": b"", "hf_msae/cli/__init__.py": b"mine", "mine.md": b"mine"}
    commit_there(at_hub, mine, KEY)
    mine_too = {"OTHER": "mine", "MSAE_EDITS": "edits", "MSAE_SWORDBENCH": "swordbench"}
    repo.variables |= mine_too
    push_space("tester/concepts", ExplorerSettings("user/other", "user/others"), requirement="hf_msae==0.1.0")
    assert repo.variables == {"MSAE_MODEL": "user/other", "MSAE_DATASET": "user/others"} | mine_too
    # Of what was sent, what is no longer needed is deleted unless somebody has edited it.
    assert {name: repo.files()[name] for name in mine} == mine
    assert not [name for name in repo.files().keys() - mine.keys() if name.startswith("hf_msae/")]


def small_push(settings=SETTINGS, **options):
    """The package is not sent, which takes a second."""
    return push_space("tester/concepts", settings, requirement="hf_msae==0.1.0", **options)


def test_a_space_of_somebody_else_is_not_overwritten(at_hub):
    small_push()
    repo = at_hub.repos[KEY]
    files = repo.files()
    repo.commit("main", {**files, "app.py": b"mine"}, "edit")
    with pytest.raises(ValueError, match=r"app\.py of the Space tester/concepts .*--overwrite"):
        small_push()
    assert repo.files()["app.py"] == b"mine"
    small_push(overwrite=True)
    assert repo.files()["app.py"] == files["app.py"]
    repo.commit("main", {"app.py": b"a Space of pictures", "README.md": b"---\nsdk: gradio\n---\n"}, "another one")
    with pytest.raises(ValueError, match=r"README\.md, app\.py of the Space"):
        small_push()
    repo.commit("main", {"README.md": b"as the Hub makes it", ".gitattributes": b""}, "a new one")
    small_push()
    assert repo.files()["app.py"] == files["app.py"]


@pytest.mark.parametrize("what", [{"status": 503}, {"lose_answer": True}], ids=["503", "no answer"])
def test_what_fails_once_or_loses_its_answer_is_done_once(at_hub, what):
    small_push(ExplorerSettings("user/msae", "user/pictures", split="test"))
    requests = [("POST", r"/repos/create"), ("POST", "/commit/main"), ("POST", "/variables"), ("DELETE", "/variables")]
    faults = [at_hub.fail(method, pattern, **what) for method, pattern in requests]
    url = small_push(ExplorerSettings(model="user/other", dataset="user/pictures"))
    assert url == f"{at_hub.url}/spaces/tester/concepts" and not any(each.times for each in faults)
    repo = at_hub.repos[KEY]
    assert repo.variables == {"MSAE_MODEL": "user/other", "MSAE_DATASET": "user/pictures"}
    assert repo.messages[1:] == ["Show concepts"] * 2 and b"user/other" in repo.files()["README.md"]


def test_a_hub_that_keeps_failing_leaves_the_space_as_it_was(at_hub):
    small_push()
    before, variables = at_hub.repos[KEY].files(), dict(at_hub.repos[KEY].variables)
    at_hub.fail("POST", "/commit/main", times=99, status=500)
    with pytest.raises(ConnectionError, match="the Space tester/concepts is as it was"):
        small_push(ExplorerSettings("user/other", "user/others"))
    assert at_hub.repos[KEY].files() == before and at_hub.repos[KEY].variables == variables


def test_variables_that_cannot_be_set_are_told_with_what_they_have_to_be(at_hub):
    at_hub.fail("POST", "/variables", times=99, status=500)
    with pytest.raises(ConnectionError, match=r"Space tester/concepts .*MSAE_MODEL=user/msae"):
        small_push()
    assert "app.py" in at_hub.repos[KEY].files()
    at_hub.faults.clear()
    small_push()
    assert at_hub.repos[KEY].variables == space_variables(SETTINGS)


def test_variables_that_are_right_are_left_alone(at_hub):
    """Each change starts the Space anew."""
    small_push()
    at_hub.requests.clear()
    small_push()
    assert not [each for each in at_hub.requests if "/variables" in each and not each.startswith("GET")]
    assert at_hub.repos[KEY].messages == ["initial commit", "Show concepts"]


def test_who_may_not_write_is_told_so(at_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    with pytest.raises(PermissionError, match="the Space tester/concepts"):
        small_push()
    assert KEY not in at_hub.repos


def test_the_command_writes_a_folder_and_says_its_variables(tmp_path, capsys):
    main(
        ["user/concepts", "--model", "user/msae", "--dataset", "user/pictures", "--dry_run", str(tmp_path / "staged")]
    )
    assert "MSAE_MODEL=user/msae" in capsys.readouterr().out and (tmp_path / "staged" / "app.py").is_file()
    with pytest.raises(SystemExit):
        main(["user/concepts", "--dry_run", str(tmp_path / "staged")])
    assert str(tmp_path / "staged") in capsys.readouterr().err


@pytest.mark.slow
def test_the_staged_space_serves_the_page_from_the_package_beside_it(tmp_path):
    pytest.importorskip("gradio")
    folder = write_space(tmp_path / "space", ExplorerSettings(dataset="scenes:test:40:7"))
    program = """
        import sys, urllib.request
        sys.path.insert(0, ".")
        import app, hf_msae
        assert hf_msae.__file__.startswith(sys.argv[1]), hf_msae.__file__
        from hf_msae.explorer.app import launch_options
        _, url, _ = app.demo.launch(prevent_thread_lock=True, server_port=None, quiet=True, **launch_options())
        page = urllib.request.urlopen(url, timeout=30).read().decode()
        assert "Concept Explorer" in page
        app.demo.close()
        print("served")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(folder)],
        cwd=folder,
        env={**os.environ, "MSAE_DATASET": "scenes:test:40:7", "GRADIO_ANALYTICS_ENABLED": "False"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0 and done.stdout.split()[-1] == "served", done.stderr
