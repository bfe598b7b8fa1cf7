"""Render public sets of icons and emoji, on which the SigLIP of the clip art is trained as well.

    python training/clipart_icons.py --output_dir outputs/icons

The clip art alone, about four thousand training drawings, is too little to learn from how different hands draw one
thing. The sets below draw the same things several times, and their names and keywords say what is shown. They are
downloaded with npm and serve as training data only: whatever is measured is measured on the Open Clip Art Library.
Variants of a drawing with another skin tone are left out.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import tarfile
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from tqdm import tqdm

from hf_msae._utils.atomic import atomic_path
from hf_msae.clipart.drawing import centered_on_white

# Version, author and license of each set.
SETS = {
    "noto": ("1.2.9", "Google", "Apache-2.0"),
    "noto-v1": ("1.2.5", "Google", "Apache-2.0"),
    "twemoji": ("1.2.5", "Twitter", "CC-BY-4.0"),
    "fxemoji": ("1.2.2", "Mozilla", "Apache-2.0"),
    "emojione": ("1.2.3", "EmojiOne", "CC-BY-4.0"),
    "fluent-emoji-flat": ("1.2.6", "Microsoft", "MIT"),
    "fluent-emoji": ("1.2.7", "Microsoft", "MIT"),
    "streamline-emojis": ("1.2.4", "Streamline", "CC-BY-4.0"),
    "game-icons": ("1.2.4", "the authors of Game-icons", "CC-BY-3.0"),
    "maki": ("1.2.5", "Mapbox", "CC0-1.0"),
    "flat-color-icons": ("1.2.3", "Icons8", "MIT"),
    "meteocons": ("1.2.4", "Bas Milius", "MIT"),
    "medical-icon": ("1.2.0", "Samuel Frémondière", "MIT"),
}
KEYWORDS = "emojibase-data@17.0.0"
FEATURES = Features(
    {
        "image": ImageFeature(),
        "title": Value("string"),
        "tags": List(Value("string")),
        "category": Value("string"),
        "set": Value("string"),
    }
)
_EMOJI = tuple(SETS)[:8]
_VARIANT = re.compile(r"skin-tone|-(light|medium-light|medium|medium-dark|dark)$")


def build_icons(output: Path, size: int = 96, num_proc: int = 2) -> Dataset:
    """Download and render all sets.

    Args:
        output: Folder to write with `save_to_disk`.
        size: Width and height of the pictures in pixels.
        num_proc: Number of processes that render.

    Raises:
        OSError: npm is missing, or a package cannot be downloaded.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        entries = json.loads((npm_package(KEYWORDS, folder) / "en" / "data.json").read_text())
        keywords = {_letters(entry["label"]): entry for entry in entries}
        rows, bodies = [], []
        for name, (version, *_) in SETS.items():
            for row, svg in icons_of(name, npm_package(f"@iconify-json/{name}@{version}", folder), keywords):
                rows.append(row)
                bodies.append(svg)
    with ProcessPoolExecutor(num_proc) as pool:
        rendered = pool.map(partial(_render, size=size), bodies, chunksize=32)
        pictures = list(tqdm(rendered, total=len(bodies), desc="rendering", unit="icon"))
    kept = [
        row | {"image": {"bytes": picture, "path": None}}
        for row, picture in zip(rows, pictures, strict=True)
        if picture is not None
    ]
    icons = Dataset.from_list(kept, FEATURES)
    with atomic_path(output) as unfinished:
        icons.save_to_disk(str(unfinished))
    return icons


def npm_package(name: str, folder: Path) -> Path:
    """Download and unpack a package, and return its folder."""
    try:
        done = subprocess.run(
            ["npm", "pack", name, "--pack-destination", str(folder)], capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise OSError("npm, which downloads the icons, is not installed") from error
    except subprocess.CalledProcessError as error:
        raise OSError(f"npm cannot download {name}: {error.stderr.strip()}") from error
    archive = folder / done.stdout.split()[-1]
    unpacked = folder / re.sub(r"\W", "-", name)
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    return unpacked / "package"


def icons_of(name: str, folder: Path, keywords: dict[str, Any]) -> list[tuple[dict, str]]:
    """Return the icons of a set: for each, what is known of it and its SVG.

    Args:
        name: Name of the set.
        folder: Its unpacked package.
        keywords: Entries of emojibase by the letters of their labels.
    """
    icons = json.loads((folder / "icons.json").read_text())
    metadata = json.loads((folder / "metadata.json").read_text()) if (folder / "metadata.json").is_file() else {}
    # The categories of Game-icons name authors' collections.
    categories = {} if name == "game-icons" else metadata.get("categories", {})
    category_of = {icon: category for category, members in reversed(categories.items()) for icon in members}
    found = []
    for icon, drawing in icons["icons"].items():
        is_variant = (name in _EMOJI and _VARIANT.search(icon)) or (name == "meteocons" and icon.endswith("-fill"))
        if drawing.get("hidden") or is_variant:
            continue
        entry = keywords.get(_letters(icon), {"label": icon.replace("-", " ")})
        row = {
            "title": _plain(entry["label"]),
            "tags": [_plain(tag) for tag in entry.get("tags", [])],
            "category": _plain(category_of.get(icon, "")),
            "set": name,
        }
        width, height = (drawing.get(side, icons.get(side, 16)) for side in ("width", "height"))
        body = drawing["body"].replace("currentColor", "#000")
        found.append(
            (
                row,
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{body}</svg>',
            )
        )
    return found


def _render(svg: str, size: int) -> bytes | None:
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * size, dpi=96, skip_system_fonts=True)
    except ValueError:
        return None
    picture = centered_on_white(bytes(png), size)
    if picture is None:
        return None
    stored = io.BytesIO()
    picture.save(stored, "PNG")
    return stored.getvalue()


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[:_]", " ", text.lower()).split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--size", type=int, default=96, help="width and height of the pictures (default 96)")
    parser.add_argument("--num_proc", type=int, default=2, help="processes that render (default 2)")
    arguments = parser.parse_args()
    icons = build_icons(arguments.output_dir, arguments.size, arguments.num_proc)
    print(icons.to_pandas()["set"].value_counts().to_string())


if __name__ == "__main__":
    main()
