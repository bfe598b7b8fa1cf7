"""Check the submissions in leaderboard/ and write the page of the leaderboard.

python benchmarks/leaderboard.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hf_msae.steering.leaderboard import write_leaderboard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(__file__).parents[1] / "leaderboard"
    parser.add_argument("--folder", type=Path, default=folder, help="Folder of the submissions.")
    try:
        print(write_leaderboard(parser.parse_args().folder))
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
