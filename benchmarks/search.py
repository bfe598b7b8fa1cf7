"""How long queries of a ConceptIndex take, compared with a matrix-vector product, and what approximate queries find.

    python benchmarks/search.py                     # 1,000,000 rows of 768, about 4 GB on disk and ten minutes
    python benchmarks/search.py --rows 100000

The embeddings are synthetic and imitate those of CLIP: they lie in a cone (the cosine of two of them is 0.6 on
average), in 2,000 overlapping clusters of unequal size, with a spread that falls off along the directions as rank to
the power of -0.6. Queries are further draws. The MSAE has its initial weights, which does not affect the time. Queries
are warm: the files are in the page cache. The approximate index needs faiss: pip install 'hf_msae[ann]'.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.embeddings import load_embeddings
from hf_msae.search import ConceptIndex

CLUSTERS = 2000


def make_embeddings(rows: int, width: int, seed: int) -> Iterator[np.ndarray]:
    """Draw embeddings, batch by batch."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    directions = np.linalg.qr(world.normal(size=(width, width)))[0].astype(np.float32)
    spread = (np.arange(1, width + 1) ** -0.6).astype(np.float32)
    middle = world.normal(size=width) * 1.2 * np.linalg.norm(spread) / np.sqrt(width)
    centers = world.normal(size=(CLUSTERS, width)).astype(np.float32)
    shares = np.arange(1, CLUSTERS + 1) ** -0.8
    for first in range(0, rows, 2**15):
        which = rng.choice(CLUSTERS, min(2**15, rows - first), p=shares / shares.sum())
        own = rng.standard_normal((len(which), width), dtype=np.float32)
        yield 0.7 * spread * (centers[which] + own) @ directions + middle.astype(np.float32)


def write_embeddings(file: Path, rows: int, width: int) -> None:
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(rows, width))
    first = 0
    for part in make_embeddings(rows, width, seed=1):
        out[first : first + len(part)] = part
        first += len(part)
    out.flush()


def timed(action: Callable[[], object], turns: int) -> list[float]:
    action()
    seconds = []
    for _ in range(turns):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return seconds


def show(
    what: str, seconds: list[float], reference: list[float] | None = None, name: str = "the matrix-vector product"
) -> None:
    milliseconds = [1e3 * each for each in seconds]
    ratio = ""
    if reference is not None:
        ratios = [one / other for one, other in zip(seconds, reference, strict=True)]
        ratio = f"; {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) times {name}"
    print(
        f"{what}: {statistics.median(milliseconds):.1f} ms ({min(milliseconds):.1f} to {max(milliseconds):.1f}){ratio}"
    )


def size_of(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*.*')) / 2**20:.0f} MiB on disk"


def show_approximate(index: ConceptIndex, matrix: torch.Tensor, queries: list[torch.Tensor], latent: int) -> None:
    """Time each query as a matrix-vector product, as an exact query and as an approximate query, in turn."""
    begun = time.perf_counter()
    index.add_approximate(progress=False)
    built = time.perf_counter() - begun
    begun = time.perf_counter()
    approximate = index.approximate
    loaded = time.perf_counter() - begun
    print(
        f"approximate index: {approximate.metadata.lists} lists; built in {built:.0f} s, "
        f"{size_of(approximate.folder)}, loaded in {loaded:.2f} s"
    )
    nearest = [set(index.by_embedding(query)["row"]) for query in queries]
    first = approximate.probes
    for probes in (first // 8, first // 4, first // 2, first):
        approximate.probes = probes
        bare, exact, some, recall = [], [], [], []
        for query, rows in zip(queries, nearest, strict=True):
            bare += timed(lambda query=query: matrix @ query, 1)
            exact += timed(lambda query=query: index.by_embedding(query), 1)
            some += timed(lambda query=query: index.by_embedding(query, approximate=True), 1)
            recall.append(len(rows & set(index.by_embedding(query, approximate=True)["row"])) / len(rows))
        default = ", the default" if probes == first else ""
        print(f"{probes} probes{default}: recall@10 {statistics.mean(recall):.3f} over {len(queries)} queries")
        show("  approximate query", some, bare)
        show("  approximate query", some, exact, "the exact query")
    approximate.probes = first
    exact, some = [], []
    for query in queries[:7]:
        exact += timed(lambda query=query: index.by_edit(query, {latent: 0.0}), 1)
        some += timed(lambda query=query: index.by_edit(query, {latent: 0.0}, approximate=True), 1)
    show("approximate query by an edited embedding", some, exact, "the exact query")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="Number of embeddings in the index.")
    parser.add_argument("--width", type=int, default=768, help="Width of the embeddings.")
    parser.add_argument("--num_latents", type=int, default=3072, help="Number of latents of the MSAE.")
    parser.add_argument("--k", type=int, default=32, help="Number of activations that the index keeps per embedding.")
    parser.add_argument("--turns", type=int, default=7, help="Number of times that each query is timed.")
    parser.add_argument("--queries", type=int, default=50, help="Number of queries for measuring recall.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "embeddings.npy"
        write_embeddings(file, arguments.rows, arguments.width)
        embeddings = load_embeddings(file)
        torch.manual_seed(0)
        msae = MSAEModel(MSAEConfig(d_in=arguments.width, num_latents=arguments.num_latents)).eval()
        sample = embeddings[:5000]
        scale = (arguments.width / (sample - sample.mean(0)).square().sum(1).mean()).sqrt()
        msae.set_input_statistics(sample.mean(0), scale)

        begun = time.perf_counter()
        index = ConceptIndex.build(Path(scratch) / "index", msae, embeddings, arguments.k, progress=False)
        built = time.perf_counter() - begun
        size = size_of(Path(scratch) / "index")
        begun = time.perf_counter()
        index = ConceptIndex(Path(scratch) / "index", msae, embeddings)
        loaded = time.perf_counter() - begun
        print(f"{len(index)} rows x {embeddings.width}, {arguments.num_latents} latents, k = {arguments.k}")
        print(f"built in {built:.0f} s, {size}, loaded in {loaded:.2f} s")

        queries = list(torch.from_numpy(next(make_embeddings(arguments.queries, arguments.width, seed=2))))
        query = queries[0]
        matrix = torch.from_numpy(np.load(file, mmap_mode="c"))
        bare, image = [], []
        for _ in range(arguments.turns + 1):  # in alternation
            bare += timed(lambda: matrix @ query, 1)
            image += timed(lambda: index.by_embedding(query), 1)
        show("matrix-vector product", bare)
        show("exact query by an embedding", image, bare)
        often = sum(np.diff(segment.offsets) for segment in index._segments)
        ordered = np.argsort(-often)
        for what, latents in (
            ("query by three of the most frequent concepts", ordered[:3]),
            ("query by three concepts of medium frequency", ordered[len(ordered) // 4 :][:3]),
        ):
            shares = ", ".join(f"{often[latent] / len(index):.1%}" for latent in latents)
            seconds = timed(lambda latents=latents: index.by_concepts({int(j): 1.0 for j in latents}), arguments.turns)
            show(f"{what} ({shares} of rows)", seconds)
        latent = int(msae.encode_topk(query[None], 1)[1])
        bare, edited = [], []
        for _ in range(arguments.turns):
            bare += timed(lambda: matrix @ query, 1)
            edited += timed(lambda: index.by_edit(query, {latent: 0.0}), 1)
        show("exact query by an edited embedding, with ranks", edited, bare)
        show_approximate(index, matrix, queries, latent)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        mapped = file.stat().st_size / 2**30
        print(f"peak memory {peak:.1f} GiB, up to {mapped:.1f} of which may be the memory-mapped embeddings")


if __name__ == "__main__":
    main()
