"""
The concept explorer under load: how soon it paints, how long answers take, and whether visitors stay apart.

    PYTHONPATH=. python benchmarks/explorer_load.py --users 20

Starts `hf-msae demo` on 127.0.0.1, asks every endpoint alone, then lets many users ask at once, each with edits of
their own, and compares what they get with what they get alone. Beside each time stands that of the bare answer,
computed here without a server.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file

from hf_msae.explorer import Explorer, ExplorerSettings
from hf_msae.explorer.neighbours import read_strengths, search
from hf_msae.explorer.sight import see
from hf_msae.explorer.tabs.match import match
from tests.explorer.serving import serving

CONCEPTS = ("star", "red", "night", "circle", "blue", "snow", "small", "frame", "green", "beach")
NO_EDITS = ("", 0) * 3


def ask_search(client: Client, user: int) -> Any:
    """The two galleries' captions of a search with this user's own edit."""
    edit = (CONCEPTS[user % len(CONCEPTS)], (-1, 1, 2)[user % 3])
    found = client.predict("a picture of the collection", None, "", user, *edit, *NO_EDITS, api_name="/search")
    return [[each["caption"] for each in gallery] for gallery in found[:2]]


def ask_match(client: Client, picture: str, user: int) -> Any:
    """The numbers of a match with this user's own words."""
    words = f"a {CONCEPTS[user % len(CONCEPTS)]} picture"
    return client.predict(handle_file(picture), words, api_name="/match_words")[-1]


def ask_see(client: Client, picture: str, user: int) -> Any:
    """The numbers of an explanation at this user's own granularity."""
    return client.predict(handle_file(picture), ("8", "16", "32", "64", "all")[user % 5], api_name="/see")[-1]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result)."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def line(name: str, seconds: list[float], bare: float | None = None) -> str:
    """A row of the table."""
    ordered = sorted(seconds)
    figures = f"{statistics.median(ordered):.2f} | {ordered[int(0.95 * (len(ordered) - 1))]:.2f} | {ordered[-1]:.2f}"
    ratio = "" if bare is None else f"{statistics.median(ordered) / bare:.1f}"
    return f"| {name} | {len(ordered)} | {figures} | {'' if bare is None else f'{bare:.3f}'} | {ratio} |"


def bare_seconds(explorer: Explorer) -> dict[str, float]:
    """The answers without a server, warm: the median of five."""
    picture = explorer.picture(5)

    def seen() -> Any:
        return see(explorer, explorer.embed_picture(picture), "16")

    def searched() -> Any:
        edits = read_strengths(explorer, [("star", 1), ("", 0), ("", 0), ("", 0)])
        return search(explorer, "a picture of the collection", None, "", 3, edits)

    def matched() -> Any:
        return match(explorer, explorer.embed_picture(picture), explorer.embed_texts(["a red star"])[0])

    found = {}
    for name, call in (("see", seen), ("search", searched), ("match", matched)):
        call()
        found[name] = statistics.median(timed(call)[0] for _ in range(5))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20, help="how many ask at once")
    parser.add_argument("--rounds", type=int, default=3, help="questions of each kind that each user asks")
    parser.add_argument("--dataset", default="scenes:test:1000:7", help="the pictures")
    args = parser.parse_args()
    explorer = Explorer.load(ExplorerSettings(dataset=args.dataset))
    bare = bare_seconds(explorer)
    print("| question | answers | median s | 95% s | longest s | bare answer s | median / bare |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, serving(Path(place), args.dataset) as served:
        picture = str(Path(place) / "picture.png")
        explorer.picture(5).save(picture)
        paint, _ = timed(lambda: urllib.request.urlopen(served.url).read())

        def user() -> Client:
            return Client(served.url, verbose=False, download_files=False)

        alone = user()
        questions = {
            "see": lambda client, number: ask_see(client, picture, number),
            "search": ask_search,
            "match": lambda client, number: ask_match(client, picture, number),
        }
        expected = {}
        for name, question in questions.items():
            question(alone, 0)
            times = []
            for number in range(args.users):
                seconds, answer = timed(lambda question=question, number=number: question(alone, number))
                times.append(seconds)
                expected[name, number] = answer
            print(line(f"{name}, one user", times, bare[name]), flush=True)
        users = [user() for _ in range(args.users)]
        wrong, failed = 0, 0
        with ThreadPoolExecutor(args.users) as pool:
            for name, question in questions.items():
                asked = [(client, number) for _ in range(args.rounds) for number, client in enumerate(users)]
                times = []
                answers = pool.map(lambda each, question=question: timed(lambda: _caught(question, *each)), asked)
                for (_, number), (seconds, answer) in zip(asked, answers, strict=True):
                    times.append(seconds)
                    failed += isinstance(answer, Exception)
                    wrong += not isinstance(answer, Exception) and json.dumps(answer) != json.dumps(
                        expected[name, number]
                    )
                print(line(f"{name}, {args.users} users at once", times, bare[name]), flush=True)
        print(
            f"\n{failed} answers failed and {wrong} differed from those asked alone, of "
            f"{args.users * args.rounds * len(questions)}. The process listened {served.seconds:.1f} s after its "
            f"start (models, {len(explorer.images)} pictures embedded); the page itself came {paint:.2f} s after it "
            "was asked for."
        )
    if failed or wrong:
        raise SystemExit(1)


def _caught(question: Callable[[Client, int], Any], client: Client, number: int) -> Any:
    try:
        return question(client, number)
    except Exception as error:  # counted: one failure must not hide the others
        return error


if __name__ == "__main__":
    main()
