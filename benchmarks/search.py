"""How long do queries of a ConceptIndex take, beside a bare matrix-vector product over the same rows?

    python benchmarks/search.py                     # 1,000,000 rows of 768, about 4 GB on disk and ten minutes
    python benchmarks/search.py --rows 100000

Embeddings are random with a few strong directions, so that latents are active more or less often; the MSAE's weights
are those it begins with: neither matters to time. Queries are warm: the files are in the machine's cache.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.activations import load_activations
from hf_msae.concepts import ConceptIndex


def make_embeddings(file: Path, rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(rows, width))
    directions = rng.normal(size=(64, width)).astype(np.float32)
    for first in range(0, rows, 2**15):
        part = out[first : first + 2**15]
        strengths = rng.exponential(size=(len(part), 64)).astype(np.float32) * np.linspace(
            1, 0.05, 64, dtype=np.float32
        )
        part[:] = strengths @ directions + rng.standard_normal((len(part), width), dtype=np.float32)
    out.flush()


def timed(action: Callable[[], object], turns: int) -> list[float]:
    action()
    seconds = []
    for _ in range(turns):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return seconds


def show(what: str, seconds: list[float], beside: list[float] | None = None) -> None:
    milliseconds = [1e3 * each for each in seconds]
    ratio = ""
    if beside is not None:
        ratios = [one / other for one, other in zip(seconds, beside, strict=True)]
        ratio = f"; {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of the bare product"
    print(
        f"{what}: {statistics.median(milliseconds):.1f} ms ({min(milliseconds):.1f} to {max(milliseconds):.1f}){ratio}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--num_latents", type=int, default=3072)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "embeddings.npy"
        make_embeddings(file, arguments.rows, arguments.width)
        acts = load_activations(file)
        torch.manual_seed(0)
        msae = MSAEModel(MSAEConfig(d_in=arguments.width, num_latents=arguments.num_latents)).eval()
        sample = acts[:5000]
        scale = (arguments.width / (sample - sample.mean(0)).square().sum(1).mean()).sqrt()
        msae.set_input_statistics(sample.mean(0), scale)

        begun = time.perf_counter()
        index = ConceptIndex.build(Path(scratch) / "index", msae, acts, arguments.k, progress=False)
        built = time.perf_counter() - begun
        size = sum(each.stat().st_size for each in (Path(scratch) / "index").rglob("*.npy"))
        begun = time.perf_counter()
        index = ConceptIndex(Path(scratch) / "index", msae, acts)
        loaded = time.perf_counter() - begun
        print(f"{len(index)} rows x {acts.width}, {arguments.num_latents} latents, k = {arguments.k}")
        print(f"built in {built:.0f} s, {size / 2**20:.0f} MiB on disk, loaded in {loaded:.2f} s")

        query = sample[17]
        matrix = torch.from_numpy(np.load(file, mmap_mode="c"))
        bare, image = [], []
        for _ in range(arguments.turns + 1):  # side by side
            bare += timed(lambda: matrix @ query, 1)
            image += timed(lambda: index.by_embedding(query), 1)
        show("bare product", bare)
        show("query by an image's embedding", image, bare)
        often = sum(np.diff(segment.offsets) for segment in index._segments)
        ordered = np.argsort(-often)
        for what, latents in (
            ("three of the most frequent concepts", ordered[:3]),
            ("three concepts of middling frequency", ordered[len(ordered) // 4 :][:3]),
        ):
            shares = ", ".join(f"{often[latent] / len(index):.1%}" for latent in latents)
            seconds = timed(lambda latents=latents: index.by_concepts({int(j): 1.0 for j in latents}), arguments.turns)
            show(f"{what} ({shares} of rows)", seconds)
        latent = int(index.code(17)["latent"][0])
        show("query by an edited embedding, with ranks", timed(lambda: index.by_edit(query, {latent: 0.0}), 3))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak memory {peak:.1f} GiB, of which the mapped embeddings may be {file.stat().st_size / 2**30:.1f}")


if __name__ == "__main__":
    main()
