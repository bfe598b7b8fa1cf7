"""Render the Open Clip Art Library into a dataset: `python -m hf_msae.clipart.build`."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from .._utils.argument_parser import MSAEArgumentParser, flag
from .._utils.atomic import atomic_path
from .._utils.json_files import write_json
from .drawing import Drawing, clean_tags, clean_titles, normalize, read_drawing, render_drawing
from .loading import SPLITS, default_folder

PACKAGE = "openclipart-svg"
FEATURES = Features(
    {
        "image": ImageFeature(),
        "title": Value("string"),
        "tags": List(Value("string")),
        "author": Value("string"),
        "category": Value("string"),
    }
)
DUPLICATE_CORRELATION = 0.95
"""Drawings whose small pictures correlate this much are versions of one drawing: a card with another border."""

_SHARES = {"test": 0.4, "validation": 0.15}
_PROLIFIC = 150
"""An author of more drawings than this is in the training split: one hand must not make up a test."""


def build_clipart(
    output: str | Path, svg_folder: str | Path | None = None, size: int = 96, num_proc: int = 2
) -> DatasetDict:
    """Render a collection of SVG drawings, clean their titles and tags, and divide them by author.

    Drawings are left out if their author did not dedicate them to the public domain, if they show nothing, or if
    they are nearly the same as an earlier one.

    `load_clipart` reads `output`, a folder that is new or empty. `svg_folder` has SVG files with metadata; without it,
    Debian's package openclipart-svg is downloaded.
    """
    import resvg_py  # noqa: F401  (an error now, not after the download)

    output = Path(output).expanduser()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists and is not empty: remove it, or name another folder with --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(svg_folder).expanduser() if svg_folder else download(Path(temporary))
        rows, left_out = collect(root, size, num_proc)
    splits = assign_splits([row["author"] for row in rows])
    parts = DatasetDict(
        {
            split: Dataset.from_list(
                [row for row, own in zip(rows, splits, strict=True) if own == split], FEATURES, split=split
            )
            for split in SPLITS
        }
    )
    with atomic_path(output) as unfinished:
        parts.save_to_disk(str(unfinished))
        record = {"size": size, "left_out": left_out, "rows": {split: len(part) for split, part in parts.items()}}
        write_json(unfinished / "clipart.json", record | {"renderer": f"resvg-py {version('resvg-py')}"})
    return DatasetDict({split: Dataset.load_from_disk(str(output / split)) for split in SPLITS})


def download(folder: Path) -> Path:
    """Download and unpack Debian's package of drawings, and return the folder of its SVG files.

    Raises OSError if apt is missing, or the package cannot be downloaded.
    """
    otherwise = f"unpack Debian's package {PACKAGE} elsewhere and name its folder of SVG files with --svg_folder"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise OSError(f"this machine has no apt-get and dpkg-deb: {otherwise}")
    done = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True)
    archives = list(folder.glob(f"{PACKAGE}_*.deb"))
    if done.returncode or not archives:
        reason = done.stderr.strip()
        raise OSError(f"apt-get cannot download {PACKAGE}: {reason} (try `apt-get update`, or {otherwise})")
    subprocess.run(["dpkg-deb", "-x", str(archives[0]), str(folder)], check=True)
    return folder / "usr" / "share" / "openclipart" / "svg"


def collect(root: Path, size: int, num_proc: int) -> tuple[list[dict], dict[str, int]]:
    """Read, render and clean the drawings below a folder; raise FileNotFoundError if it holds none.

    Returns a row for each drawing that is kept, in the order of their paths, and the number left out for each reason.
    """
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".svg", ".svgz") and path.is_file())
    if not files:
        raise FileNotFoundError(f"{root} holds no .svg or .svgz file")
    left_out: Counter[str] = Counter()
    drawings, pictures = [], []
    with ProcessPoolExecutor(num_proc) as pool:
        done = pool.map(partial(_read_and_render, root=root, size=size), files, chunksize=16)
        for drawing, stored in tqdm(done, total=len(files), desc="rendering", unit="drawing"):
            reason = _reason_to_leave_out(drawing, stored)
            if reason:
                left_out[reason] += 1
            else:
                drawings.append(drawing)
                pictures.append(stored)
    kept = distinct(pictures)
    left_out["duplicate"] = len(drawings) - len(kept)
    # Words are cleaned over the whole collection: which spelling is common does not depend on what is kept.
    titles, tags = clean_titles(drawings), clean_tags(drawings)
    rows = [
        {
            "image": {"bytes": pictures[i], "path": None},
            "title": titles[i],
            "tags": list(tags[i]),
            "author": drawings[i].author,
            "category": drawings[i].category,
        }
        for i in kept
    ]
    return rows, dict(left_out)


def distinct(pictures: Sequence[bytes], correlation: float = DUPLICATE_CORRELATION) -> list[int]:
    """Return the indices of encoded pictures that are not nearly the same as an earlier one.

    Pictures whose pixels, at 32 x 32, correlate by more than `correlation` are taken for the same.
    """
    small = np.stack([_thumbnail(picture) for picture in pictures])
    is_kept = np.zeros(len(small), dtype=bool)
    for start in range(0, len(small), 512):  # by blocks, since the products of single rows are slow
        block = small[start : start + 512]
        seen = (block @ small[:start][is_kept[:start]].T).max(axis=1, initial=-1.0)
        within = block @ block.T
        for i in range(len(block)):
            earlier = within[i, :i][is_kept[start : start + i]].max(initial=-1.0)
            is_kept[start + i] = max(seen[i], earlier) <= correlation
    return np.flatnonzero(is_kept).tolist()


def assign_splits(authors: Sequence[str]) -> list[str]:
    """Return the split of each drawing, which depends on its author; names that may be one person's count as one."""
    hands = same_hands(authors)
    counts = Counter(hands)
    return [_split_of(hand, counts[hand]) for hand in hands]


def same_hands(authors: Sequence[str]) -> list[str]:
    """Replace each name by the first, in alphabetical order and lower case, of those that may be of the same person.

    "Francesco Rollandin" and "Architetto Rollandin, Francesco" are one hand: all words of a name of at least two
    words are in the other.
    """
    names = sorted(set(map(normalize, authors)))
    words = [frozenset(re.findall(r"\w+", name)) for name in names]
    contained = np.array([[len(one) > 1 and one <= other for other in words] for one in words])
    groups = connected_components(coo_array(contained), directed=False)[1]
    first = {group: names[i] for i, group in reversed(list(enumerate(groups)))}
    hands = {name: first[group] for name, group in zip(names, groups, strict=True)}
    return [hands[normalize(author)] for author in authors]


def _split_of(hand: str, number: int) -> str:
    if number > _PROLIFIC:
        return "train"
    place = int.from_bytes(hashlib.sha256(hand.encode()).digest()[:8], "big") / 2**64
    if place < _SHARES["test"]:
        return "test"
    return "validation" if place < _SHARES["test"] + _SHARES["validation"] else "train"


def _reason_to_leave_out(drawing: Drawing | None, stored: bytes | None) -> str | None:
    if drawing is not None and not drawing.public_domain:
        return "not in the public domain"
    if drawing is not None and not drawing.author:
        return "no author"
    return "not rendered" if stored is None else None


def _read_and_render(file: Path, root: Path, size: int) -> tuple[Drawing | None, bytes | None]:
    try:
        drawing = read_drawing(file, root)
    except ElementTree.ParseError:  # no drawing; the manifest counts it as not read
        return None, None
    picture = render_drawing(file, size) if drawing.public_domain else None
    if picture is None:
        return drawing, None
    stored = io.BytesIO()
    picture.save(stored, "PNG", optimize=True)
    return drawing, stored.getvalue()


def _thumbnail(picture: bytes) -> np.ndarray:
    small = Image.open(io.BytesIO(picture), formats=["PNG"]).resize((32, 32), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32).ravel()
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


@dataclass
class BuildArguments:
    """The flags of the command."""

    output: str | None = flag(
        "Folder to write. Defaults to hf_msae/clipart in HF_HOME, where load_clipart looks.", None
    )
    svg_folder: str | None = flag(
        "Folder of SVG files. Defaults to Debian's package openclipart-svg, which is downloaded.", None
    )
    size: int = flag("Width and height of the pictures in pixels.", 96)
    num_proc: int = flag("Number of processes that render.", 2)


def main(argv: Sequence[str] | None = None) -> None:
    """Build the dataset and print what it holds."""
    parser = MSAEArgumentParser(
        [BuildArguments],
        prog="python -m hf_msae.clipart.build",
        description="Render the drawings of the Open Clip Art Library (public domain) into a dataset that "
        "load_clipart reads.",
        example="  python -m hf_msae.clipart.build --output clipart",
    )
    (arguments,) = parser.parse(argv)
    output = Path(arguments.output or default_folder())
    with parser.reporting_errors():
        parts = build_clipart(output, arguments.svg_folder, arguments.size, arguments.num_proc)
    for split, part in parts.items():
        authors, tags = set(same_hands(part["author"])), {tag for tags in part["tags"] for tag in tags}
        print(f"{split}: {len(part)} drawings by {len(authors)} authors, {len(tags)} tags")
    print(output)


if __name__ == "__main__":
    main()
