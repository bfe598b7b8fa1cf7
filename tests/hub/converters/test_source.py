"""Finding and reading a checkpoint's files: on disk, on a Hub, damaged, and with code hidden in them."""

import io
import pickle
import zipfile
from hashlib import sha256

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, close_session, constants
from safetensors.torch import save_file

from hf_msae.hub.converters import read_checkpoint
from hf_msae.hub.converters.source import CheckpointSource
from tests.hub.converters.conftest import FOREIGN


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


def test_a_folder_a_file_and_a_subfolder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x.pth", "a/cfg.json", "a/w.safetensors", "a/b/w.safetensors"):
        (tmp_path / name).write_text(name)
    whole = CheckpointSource.open(tmp_path)
    assert whole.files == ("a/b/w.safetensors", "a/cfg.json", "a/w.safetensors", "x.pth")
    assert whole.matching("*.pth", "*.json") == ["x.pth"]
    assert whole.folders_with("w.safetensors") == ["a/", "a/b/"]
    assert whole.folders_with("cfg.json", "w.safetensors") == ["a/"]
    assert whole.path("a/cfg.json").read_text() == "a/cfg.json"
    inner = CheckpointSource.open(tmp_path, "a")
    assert inner.files == ("b/w.safetensors", "cfg.json", "w.safetensors")
    single = CheckpointSource.open(tmp_path / "a" / "cfg.json")
    assert single.files == ("cfg.json",)
    assert single.has("w.safetensors") and not single.has("x.pth")
    assert single.path("w.safetensors").read_text() == "a/w.safetensors"
    assert single.full_name("cfg.json").endswith("a/cfg.json")
    assert single.full_name("w.safetensors").endswith("a/w.safetensors")


def test_a_missing_file_is_named(tmp_path):
    for arguments in ((tmp_path, "nothing"), (tmp_path / "nothing",)):
        with pytest.raises(FileNotFoundError, match="nothing"):
            CheckpointSource.open(*arguments)
    with pytest.raises(FileNotFoundError, match=r"cfg\.json"):
        CheckpointSource.open(tmp_path).path("cfg.json")


@pytest.mark.parametrize("how", ["zip", "legacy", "plain pickle"])
def test_hidden_code_is_not_run(tmp_path, how):
    made, file = tmp_path / "made", tmp_path / "model.pth"
    content = {"model": Malicious(made), "mean_center": torch.zeros(2), "scaling_factor": 1.0}
    if how == "plain pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ValueError, match=r"model\.pth .*io\.open"):
        CheckpointSource.open(file).read("model.pth")
    assert not made.exists()
    torch.load(file, weights_only=False) if how != "plain pickle" else pickle.loads(file.read_bytes())
    assert made.exists()  # so it would have been


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "ae.pt")
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear.*module\.state_dict\(\)"):
        CheckpointSource.open(tmp_path).read("ae.pt")


def _good():
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(1000.0)}, buffer)
    return buffer.getvalue()


def _zip(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


# Its length is not believed, so no memory is reserved for it.
TERABYTE = b"\x80\x02\x8d" + (2**40).to_bytes(8, "little") + b"ae"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        _good()[:10],
        _good()[: len(_good()) // 2],
        _good()[:-100],
        b"hello, no pickle at all",
        b'{"schema": 5}\n' + _good(),
        bytes(5000),
        b"\x80\x02" + bytes(range(256)),
        _zip(readme="hello"),
        TERABYTE,
        _zip(**{"zip/data.pkl": TERABYTE, "zip/version": "3\n"}),
    ],
    ids=["empty", "start", "half", "but the end", "text", "header", "zeros", "garbage", "zip", "terabyte", "zipped"],
)
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pth is damaged.*: \S"):
        CheckpointSource.open(tmp_path / "x.pth").read("x.pth")


def test_json_and_safetensors_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    (tmp_path / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    save_file({"w": torch.zeros(10)}, tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-8])
    source = CheckpointSource.open(tmp_path)
    for name in ("list.json", "bytes.json", "deep.json"):
        with pytest.raises(ValueError, match=name):
            source.settings(name)
    with pytest.raises(ValueError, match=r"cut\.safetensors is damaged"):
        source.read("cut.safetensors")


@pytest.mark.parametrize("name", ["model.pth", "sae_weights.safetensors", "cfg.json"])
def test_a_pointer_of_git_lfs_is_said_to_be_one(tmp_path, name):
    oid = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12345\n")
    source = CheckpointSource.open(tmp_path)
    read = {"pth": source.read, "safetensors": source.read, "json": source.settings}
    with pytest.raises(ValueError, match=rf"{name} .*`git lfs pull`"):
        read[name.rpartition(".")[2]](name)


@pytest.fixture
def publish(at_hub, tmp_path, monkeypatch):
    """Commit files (path -> content) to tester/saes on the stub Hub, and return the commit."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def publish(files):
        HfApi().create_repo("tester/saes", exist_ok=True)
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        return HfApi().create_commit("tester/saes", operations, commit_message="files").oid

    return publish


def files_of(name, prefix=""):
    return {prefix + file.name: file.read_bytes() for file in (FOREIGN / "saelens" / name).iterdir()}


def convert(**arguments):
    found = read_checkpoint("tester/saes", **arguments)
    return found.revision, found.to_model().config.activation


def test_a_hub_id_is_read_at_a_commit_and_offline_from_the_cache(at_hub, publish, monkeypatch):
    first = publish(files_of("topk"))
    second = publish(files_of("jumprelu"))
    assert convert() == (second, "jump_relu")
    assert convert(revision=first) == (first, "topk")
    asked = len(at_hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert convert() == (second, "jump_relu") and len(at_hub.requests) == asked
    assert not any("expected" in request for request in at_hub.requests if "resolve" in request)  # only what it needs
    with pytest.raises(FileNotFoundError, match=r"tester/none.*HF_HUB_OFFLINE"):
        read_checkpoint("tester/none")


def test_subfolders_and_files_of_a_hub_id(publish):
    publish({**files_of("topk", "a/"), **files_of("jumprelu", "b/")})
    with pytest.raises(ValueError, match="subfolder: a, b"):
        convert()
    for subfolder in ("b", "b/sae_weights.safetensors"):
        assert convert(subfolder=subfolder)[1] == "jump_relu"
    for missing in ({"subfolder": "c"}, {"revision": "v9"}):
        with pytest.raises(FileNotFoundError, match=f"tester/saes.* {next(iter(missing.values()))}|'v9'"):
            convert(**missing)
    with pytest.raises(FileNotFoundError, match="tester/none"):
        read_checkpoint("tester/none")


def test_a_hub_that_cannot_be_reached_is_an_os_error(publish, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="tester/saes"):
        convert()


@pytest.mark.parametrize("offline", [False, True])
def test_a_damaged_copy_in_the_cache_is_not_read(offline, publish, tmp_path, monkeypatch):
    publish(files_of("topk"))
    convert()
    (weights,) = (tmp_path / "cache").rglob("sae_weights.safetensors")
    blob = weights.resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1  # still a file of numbers
    blob.write_bytes(bytes(content))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    close_session()
    found = f"{sha256(content).hexdigest()}.*{blob.name}.*'tester/saes', 'sae_weights.safetensors', force_download"
    with pytest.raises(ValueError, match=f"tester/saes/sae_weights.safetensors.*{found}"):
        convert()
