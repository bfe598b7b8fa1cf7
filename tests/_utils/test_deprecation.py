"""Old names still work for one release, and say what the new ones are."""

import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from hf_msae import embeddings
from hf_msae._utils.argument_parser import MSAEArgumentParser
from hf_msae._utils.deprecation import renamed_arguments


@renamed_arguments(activations="embeddings")
def double(embeddings):
    return 2 * embeddings


def test_an_old_keyword_still_works():
    with pytest.warns(DeprecationWarning, match=r"activations.*embeddings"):
        assert double(activations=2) == 4
    assert double(embeddings=3) == 6
    assert double(3) == 6
    with pytest.raises(TypeError, match="embeddings and activations"):
        double(activations=1, embeddings=2)


@pytest.mark.parametrize(
    "old, new", [("load_activations", "load_embeddings"), ("ActivationWriter", "EmbeddingWriter")]
)
def test_an_old_attribute_still_works(old, new):
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(embeddings, old) is getattr(embeddings, new)
    with pytest.raises(AttributeError, match="no_such"):
        embeddings.no_such  # noqa: B018


@dataclass
class _Arguments:
    output: str = field(metadata={"help": "Where to write.", "aliases": ["--output_file"]})


@pytest.mark.parametrize("argv", [["--output_file", "a"], ["--output_file=a"]])
def test_an_old_flag_still_works(argv, tmp_path):
    parser = MSAEArgumentParser([_Arguments], "It writes.", "it --output a")
    with pytest.warns(DeprecationWarning, match=r"--output_file.*--output"):
        assert parser.parse(argv)[0].output == "a"
    assert "output_file" not in parser.format_help()
    (tmp_path / "a.yaml").write_text("output_file: b")
    with pytest.warns(DeprecationWarning, match=r"output_file.*output"):
        assert parser.parse(["--config", str(tmp_path / "a.yaml")])[0].output == "b"


@pytest.mark.slow
def test_a_command_shows_the_warning_that_python_hides_by_default():
    program = (
        "from tests._utils.test_deprecation import _Arguments, MSAEArgumentParser;"
        "MSAEArgumentParser([_Arguments], 'It writes.', 'it').parse(['--output_file', 'a'])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "--output_file" in done.stderr and "use --output" in done.stderr
