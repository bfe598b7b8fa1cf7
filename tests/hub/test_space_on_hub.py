"""The explorer as a Space: what it consists of, and that it is published in one commit with its variables."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from hf_msae.commands.push_space import main
from hf_msae.explorer import ExplorerSettings
from hf_msae.hub.space import push_space, space_variables, write_space
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


def test_the_version_of_gradio_is_the_tested_one(tmp_path):
    gradio = pytest.importorskip("gradio")
    assert metadata(write_space(tmp_path / "space", SETTINGS))["sdk_version"] == gradio.__version__


def test_with_a_requirement_the_package_is_not_sent(tmp_path):
    folder = write_space(tmp_path / "space", ExplorerSettings(), requirement="hf_msae==0.1.0")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    assert "hf_msae==0.1.0" in (folder / "requirements.txt").read_text().splitlines()
    assert "models" not in metadata(folder)


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
        with pytest.raises(ValueError, match="is on this machine, where a Space cannot read it"):
            space_variables(ExplorerSettings(model=local))
    for elsewhere in ("path/to/images", "nothing like it"):
        with pytest.raises(ValueError, match="neither user/name on the Hub nor one that comes with the package"):
            space_variables(ExplorerSettings(dataset=elsewhere))
    assert space_variables(ExplorerSettings(model="scenes-image", dataset="scenes:test:50")) == {
        "MSAE_DATASET": "scenes:test:50"
    }


def test_it_is_published_in_one_commit_and_renewed(at_hub):
    url = push_space("tester/concepts", SETTINGS, private=True)
    repo = at_hub.repos[KEY]
    assert url == f"{at_hub.url}/spaces/tester/concepts" and repo.private
    assert repo.messages == ["initial commit", "Show concepts"]
    assert repo.variables == space_variables(SETTINGS)
    files = repo.files()
    assert {"app.py", "README.md", "requirements.txt", "hf_msae/explorer/app.py"} <= set(files)
    repo.commit("main", {**files, "hf_msae/old.py": b"", "mine.md": b"mine"}, "edit")
    repo.variables["OTHER"] = "mine"
    push_space("tester/concepts", ExplorerSettings(model="user/other"))
    assert repo.variables == {"MSAE_MODEL": "user/other", "OTHER": "mine"}
    assert "mine.md" in repo.files() and "hf_msae/old.py" not in repo.files()


def test_who_may_not_write_is_told_so(at_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    with pytest.raises(PermissionError, match="no permission to write to the Space tester/concepts"):
        push_space("tester/concepts", SETTINGS)
    assert KEY not in at_hub.repos


def test_the_command_writes_a_folder_and_says_its_variables(tmp_path, capsys):
    main(["user/concepts", "--model", "user/msae", "--dry_run", str(tmp_path / "staged")])
    assert "MSAE_MODEL=user/msae" in capsys.readouterr().out and (tmp_path / "staged" / "app.py").is_file()
    with pytest.raises(SystemExit):
        main(["user/concepts", "--dry_run", str(tmp_path / "staged")])
    assert "is there already" in capsys.readouterr().err


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


def test_the_spaces_own_files_are_in_the_checkout():
    app = Path(__file__).parents[2] / "spaces" / "concept-explorer"
    assert {path.name for path in app.iterdir()} == {"app.py", "README.md", "requirements.txt"}
