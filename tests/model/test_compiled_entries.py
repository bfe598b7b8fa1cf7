"""The C functions against torch, on rows that are hard to rank, and what happens where they can't be compiled."""

import logging
import os
import shutil
import stat
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from hf_msae._utils.cache import cache_folder
from hf_msae._utils.file_integrity import sha256_of
from hf_msae.model.fused import compiled_entries, compiler
from hf_msae.model.fused.compiled_entries import CompiledEntries

ROWS, N, D = 9, 700, 37
KS = (1, 5, 60, 61, 300, 650)


@pytest.fixture
def library():
    found = compiler.compiled_library()
    if found is None:
        pytest.skip("there is no C compiler")
    return found


def hard_rows() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    code = torch.randn(ROWS, N, generator=generator).relu()
    code[1] = 0
    code[2, ::3] = 1e6  # all others in the last bucket, which has to be sorted
    code[2, 5] = 1e30
    code[3] = (code[3] * 4).round()  # many ties, most borders between equals
    code[4] = 1.0
    code[5] *= 1e-42  # subnormal
    code[6, 10] = float("inf")
    code[7] = torch.where(code[7] > 0, code[7], -0.0)
    code[8, 3], code[8, 4] = float("nan"), -float("nan")
    return code


def test_the_first_k_ranked_are_the_top_k(library):
    code = hard_rows()
    entries = CompiledEntries(library, torch.zeros(N, D))
    active = entries.rank(code, code, KS)
    assert active.tolist() == (code != 0).sum(1).tolist()
    order = code.argsort(dim=1, descending=True, stable=True)  # NaN first, ties by place
    firsts = [0, *active.cumsum().tolist()]
    for row, (begin, end) in enumerate(pairwise(firsts)):
        columns = entries._columns[begin:end].tolist()
        for k in (*KS, N):
            assert set(columns[:k]) == set(order[row, : min(k, active[row])].tolist()), (row, k)
        torch.testing.assert_close(entries._values[begin:end], code[row, columns], rtol=0, atol=0, equal_nan=True)


FLOAT, HALF = torch.float32, torch.bfloat16
WIDTHS = [(FLOAT, 16, 1), (FLOAT, 16, 200), (FLOAT, 32, 37), (FLOAT, 64, 64)]
WIDTHS += [(HALF, 32, 1), (HALF, 32, 200), (HALF, 64, 37), (HALF, 64, 64), (HALF, 128, 200)]


def rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype).float()


@pytest.mark.parametrize("threads", [1, 3, 11])
@pytest.mark.parametrize(("dtype", "width", "d"), WIDTHS)
def test_products_equal_dense_ones(library, d, width, dtype, threads, monkeypatch, relative_error):
    """In bfloat16, those of what is rounded to it: sums are in float32."""
    torch.manual_seed(0)
    monkeypatch.setattr(compiled_entries, "slice_width", lambda *sizes: width)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        code = hard_rows()[:6].nan_to_num()
        code[2] = 0  # 1e30 leaves nothing of the others
        dictionary = torch.randn(N, d)
        entries = CompiledEntries(library, dictionary, dtype=dtype)
        entries.rank(code, code, KS)
        codes = torch.stack([entries.top(k, torch.empty_like(code)).clone() for k in (*KS, N)])
        rings = entries.rings([0, *KS, N])
        assert relative_error(rings.decode(), codes @ rounded(dictionary, dtype)) < 1e-6

        gradients = torch.randn(len(KS) + 1, len(code), d)
        members = (codes != 0).float().diff(dim=0, prepend=torch.zeros(1, *code.shape))  # of each ring
        out, of_dictionary = torch.ones_like(code), torch.ones_like(dictionary)
        rings.add_gradients_(gradients, out, of_dictionary)
        gradients = rounded(gradients, dtype)
        expected = 1 + (members * (gradients @ rounded(dictionary, dtype).T)).sum(0)
        assert relative_error(out, expected) < 1e-6
        expected = 1 + torch.einsum("lrn,lrd->nd", members * code, gradients)
        assert relative_error(of_dictionary, expected) < 1e-6
    finally:
        torch.set_num_threads(before)


def test_bfloat16_is_rounded_as_torch_does(library):
    numbers = torch.randn(40, 40).double().exp().float()
    numbers[0, :9] = torch.tensor(
        [0.0, -0.0, 1e-40, 3.4e38, -3.4e38, float("inf"), -float("inf"), 1.00390625, 1.01171875]
    )
    numbers[0, 9:11] = torch.tensor([0x7F800001, 0x7FC00000], dtype=torch.int32).view(torch.float32)  # NaN
    entries = CompiledEntries(library, numbers, dtype=HALF)
    code = torch.eye(40)
    entries.rank(code, code, [1])
    found = entries.rings([0, 1]).decode()[0]
    torch.testing.assert_close(found, rounded(numbers, HALF), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("n", "d", "threads", "width"),
    [
        (4096, 512, 2, 64),
        (4096, 768, 2, 64),
        (6144, 768, 2, 32),
        (24576, 768, 2, 64),
        (4096, 512, 16, 32),
        (4096, 9, 2, 16),
    ],
)
def test_slices_fit_the_cache_and_each_thread_has_one(n, d, threads, width):
    assert compiled_entries.slice_width(n, d, threads, 2**20) == width
    assert compiled_entries.slice_width(n, 2 * d, threads, 2**20, HALF) == 2 * width, "as many bytes"


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing compiled yet, and an empty place to keep what is."""

    def forget():
        compiler.compiled_library.cache_clear()
        compiler._folder.cache_clear()

    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "_FLAGS", ("-O0", "-shared", "-fPIC"))  # a third of the time
    forget()
    yield tmp_path / "cache" / "compiled"
    forget()


def test_it_is_compiled_once(library, fresh):
    assert compiler.compiled_library() is not None
    checksum, kept = sorted(fresh.iterdir(), key=lambda path: path.suffix)  # and nothing half-made beside them
    assert (checksum.suffix, kept.suffix) == (".sha256", ".so")
    before = kept.stat().st_mtime_ns
    compiler.compiled_library.cache_clear()
    assert compiler.compiled_library() is not None
    assert kept.stat().st_mtime_ns == before


def test_it_is_kept_in_a_private_folder_of_the_one_cache(fresh, monkeypatch, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o755)
    assert compiler._folder() == cache_folder("compiled") == fresh
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    compiler._folder.cache_clear()
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path / "link"))
    assert compiler._folder() == fresh


def another_library(kept):
    """A valid library with a checksum that fits, but without the functions."""
    subprocess.run(["cc", "-shared", "-x", "c", "/dev/null", "-o", str(kept)], check=True)
    kept.with_suffix(".sha256").write_text(sha256_of(kept))


def link_elsewhere(kept):
    shutil.copy(kept, kept.parent.parent / "planted.so")
    kept.unlink()
    kept.symlink_to(kept.parent.parent / "planted.so")


DAMAGES = {
    "nothing": lambda kept: kept.write_bytes(b""),
    "half": lambda kept: kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2]),
    "zeros at the end": lambda kept: kept.write_bytes(kept.read_bytes()[:3000] + bytes(kept.stat().st_size - 3000)),
    "no checksum": lambda kept: kept.with_suffix(".sha256").unlink(),
    "another library": another_library,
    "a link": link_elsewhere,
    "writable by all": lambda kept: kept.chmod(0o777),
}


QUICK = ("nothing", "another library")
LONG = [pytest.param(damage, marks=pytest.mark.slow) for damage in DAMAGES if damage not in QUICK]


@pytest.mark.parametrize("damage", [*QUICK, *LONG])
def test_what_was_not_compiled_here_is_not_loaded_but_compiled_anew(library, fresh, damage):
    kept = compiler._built()
    before = sha256_of(kept)
    DAMAGES[damage](kept)
    assert compiler.compiled_library() is not None
    assert not kept.is_symlink() and kept.stat().st_mode & 0o777 == 0o700
    assert kept.with_suffix(".sha256").read_text() == sha256_of(kept) == before
    planted = fresh.parent / "planted.so"
    assert not planted.exists() or sha256_of(planted) == before  # it was not written through the link


@pytest.mark.parametrize("change", [lambda folder: folder.chmod(0o777), lambda folder: os.chown(folder, 65534, 65534)])
def test_a_folder_that_others_can_write_to_is_not_used(library, fresh, change, caplog):
    fresh.mkdir(mode=0o700, parents=True)
    try:
        change(fresh)
    except PermissionError:
        pytest.skip("only root can give a folder away")
    with caplog.at_level(logging.WARNING):
        assert compiler.compiled_library() is not None
    assert str(fresh) in caplog.text and not any(fresh.iterdir())
    assert compiler._folder().stat().st_mode & 0o777 == 0o700


def test_without_a_home_it_is_compiled_for_this_process(library, fresh, monkeypatch):
    monkeypatch.setenv("HF_MSAE_CACHE", "/proc/nowhere")
    assert compiler.compiled_library() is not None
    folder = compiler._folder()
    assert folder.parent.name.startswith("hf_msae-") and stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("cc", ["no-such-compiler", "false", 'gcc "'])
def test_without_a_compiler_the_log_says_so_once(cc, fresh, monkeypatch, caplog):
    monkeypatch.setenv("CC", cc)
    with caplog.at_level(logging.WARNING):
        assert compiler.compiled_library() is None
        assert compiler.compiled_library() is None
    assert len(caplog.records) == 1
    assert "training steps will be slower" in caplog.text
    assert not fresh.exists() or not any(fresh.iterdir())


def test_compiling_can_be_forbidden(fresh, monkeypatch, caplog):
    monkeypatch.setenv("HF_MSAE_COMPILE", "0")
    assert compiler.compiled_library() is None
    assert not caplog.records and not fresh.exists()


@pytest.mark.slow
def test_it_shares_the_threads_of_torch(library):
    """Two OpenMP runtimes in a process would fight for its cores."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    program = """
import torch
from hf_msae.model.fused.compiler import compiled_library
compiled_library()
names = {line.split()[-1].rpartition("/")[2] for line in open("/proc/self/maps")}
print(sum("omp" in name for name in names))
"""
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=os.environ)
    assert int(run.stdout) == 1


@pytest.mark.slow
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have(library):
    program = """
import os
import shutil
import torch
from hf_msae import MSAEConfig, MSAEModel

torch.set_num_threads(2)
model, x = MSAEModel(MSAEConfig(d_in=24, num_latents=40)), torch.randn(9, 24)
model(x, return_loss=True, loss_only=True)  # starts the threads
torch.set_num_threads(1)
loss = model(x, return_loss=True, loss_only=True).loss
child = os.fork()
if child == 0:
    torch.get_num_threads = lambda: 2  # so that torch's own operations use one, but ours would use two
    os._exit(0 if model(x, return_loss=True, loss_only=True).loss == loss else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_what_inference_mode_has_left_does_not_matter(library):
    from hf_msae import MSAEConfig, MSAEModel
    from hf_msae.model.fused import compiled_entries

    compiled_entries.WORKSPACE._kept.clear()
    model, x = MSAEModel(MSAEConfig(d_in=24, num_latents=40)), torch.randn(9, 24)
    with torch.inference_mode():
        expected = model(x, return_loss=True, loss_only=True).loss.item()
    loss = model(x, return_loss=True, loss_only=True).loss
    loss.backward()
    assert loss.item() == expected and model.encoder.grad.any()
    with torch.device("meta"):
        assert model(x, return_loss=True, loss_only=True).loss.item() == expected
