"""
The concept explorer under load: how soon it paints, how long answers take, and whether visitors stay apart.

    PYTHONPATH=. python benchmarks/explorer_load.py --users 20

Starts `hf-msae demo` on 127.0.0.1, asks endpoints alone, then lets many users ask at once, each with edits of their
own, and compares what they get with what they get alone. Beside each time stands that of the bare answer, computed
here without a server. First paint is measured in Chromium, where playwright and a Chromium are installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file

from hf_msae.explorer import Explorer, ExplorerSettings
from hf_msae.explorer.tabs.bias.answer import TEXTS, Target, bias, usable_columns
from hf_msae.explorer.tabs.concepts.answer import listing
from hf_msae.explorer.tabs.match.answer import match
from hf_msae.explorer.tabs.search.answer import read_strengths, search
from hf_msae.explorer.tabs.see.answer import see
from hf_msae.explorer.tabs.steer.answer import read_edits, read_labels, steer
from tests.explorer.serving import Served, serving

CONCEPTS = ("star", "red", "night", "circle", "blue", "snow", "small", "frame", "green", "beach")
GRANULARITIES = ("8", "16", "32", "64", "all")
LABELS = "a star, a circle, a square"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass(frozen=True)
class Question:
    """Something that visitors ask.

    Attributes:
        ask: the question of the user of a number, through their client; gives what can be compared.
        bare: computes the same answer here; takes a number, so that nothing kept from before is given.
    """

    ask: Callable[[Client, int], Any]
    bare: Callable[[int], Any]


def questions_of(explorer: Explorer, picture: str) -> dict[str, Question]:
    """Name -> question; `picture` is the path of the picture that users send."""
    shown = explorer.picture(5)
    columns = usable_columns(explorer)

    def concept(number: int) -> str:
        return CONCEPTS[number % len(CONCEPTS)]

    def texts(number: int) -> tuple[str, str]:
        return f"a {concept(number)} picture", f"a {concept(number + 3 + number // len(CONCEPTS))} picture"

    def strength(number: int) -> int:
        return (-1, 1, 2)[number % 3]

    def ask_search(client: Client, user: int) -> Any:
        slots = (concept(user), strength(user), *("", 0) * 3)
        found = client.predict("a picture of the collection", None, "", user, *slots, api_name="/search")
        return [[each["caption"] for each in gallery] for gallery in found[:2]]

    def ask_steer(client: Client, user: int) -> Any:
        slots = (concept(user), "add", 1 + user % 2, *("", "multiply", 1) * 3)
        return client.predict(handle_file(picture), LABELS, "as it is", *slots, api_name="/steer")[2]

    def bare_search(number: int) -> Any:
        edits = read_strengths(explorer, [(concept(number), strength(number)), *[("", 0)] * 3])
        return search(explorer, "a picture of the collection", None, "", number, edits)

    def bare_match(number: int) -> Any:
        words = explorer.embed_texts([f"a {concept(number)} picture"])[0]
        return match(explorer, explorer.embed_picture(shown), words)

    def bare_steer(number: int) -> Any:
        edits = read_edits(explorer, [(concept(number), "add", 1 + number % 2)])
        return steer(explorer, explorer.embed_picture(shown), read_labels(LABELS), edits)

    def file() -> Any:
        return handle_file(picture)

    return {
        "see": Question(
            lambda client, user: client.predict(file(), GRANULARITIES[user % 5], api_name="/see")[2],
            lambda number: see(explorer, explorer.embed_picture(shown), GRANULARITIES[number % 5]),
        ),
        "search": Question(ask_search, bare_search),
        "match": Question(
            lambda client, user: client.predict(file(), f"a {concept(user)} picture", api_name="/match_words")[-1],
            bare_match,
        ),
        "concepts": Question(
            lambda client, user: client.predict(concept(user), False, "name", api_name="/concepts"),
            lambda number: listing(explorer, concept(number), False, "name"),
        ),
        "steer": Question(ask_steer, bare_steer),
        # Columns are explained before anybody asks; of texts, the first to ask waits, and the answer is kept.
        "bias of a column": Question(
            lambda client, user: client.predict(columns[user % len(columns)], "", "", api_name="/bias")[1],
            lambda number: bias.__wrapped__(explorer, Target(column=columns[number % len(columns)])),
        ),
        "bias of texts": Question(
            lambda client, user: client.predict(TEXTS, *texts(user), api_name="/bias")[1],
            lambda number: bias.__wrapped__(explorer, Target(texts=texts(number))),
        ),
    }


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result)."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def line(name: str, seconds: list[float], bare: float) -> str:
    """A row of the table."""
    ordered = sorted(seconds)
    median = statistics.median(ordered)
    figures = f"{median:.2f} | {ordered[int(0.95 * (len(ordered) - 1))]:.2f} | {ordered[-1]:.2f}"
    return f"| {name} | {len(ordered)} | {figures} | {bare:.3f} | {median / bare:.1f} |"


def painted(served: Served) -> str:
    """How soon a browser shows the page and the answer about the example, in a sentence."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return "First paint was not measured: there is no playwright (pip install 'hf_msae[browser]')."
    if CHROMIUM is None:
        return "First paint was not measured: there is no Chromium."
    headings, answers = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(6):
            page = browser.new_context().new_page()
            start = time.perf_counter()
            page.goto(served.url, wait_until="commit")
            page.get_by_role("heading", name="Concept Explorer").wait_for()
            headings.append(time.perf_counter() - start)
            page.locator("table.msae-bars:visible").first.wait_for()
            answers.append(time.perf_counter() - start)
            page.context.close()
        browser.close()
    cold = served.seconds + headings[0]
    return (
        f"In Chromium the heading was there {headings[0]:.2f} s after the first navigation, {cold:.1f} s after the "
        f"start of the process, and {statistics.median(headings[1:]):.2f} s after later ones; the answer about the "
        f"example {answers[0]:.2f} s after the first, {statistics.median(answers[1:]):.2f} s after later ones "
        "(medians of five, each with an empty cache)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20, help="how many ask at once")
    parser.add_argument("--rounds", type=int, default=3, help="questions of each kind that each user asks")
    parser.add_argument("--dataset", default="scenes:test:1000:7", help="the pictures")
    args = parser.parse_args()
    explorer = Explorer.load(ExplorerSettings(dataset=args.dataset))
    with tempfile.TemporaryDirectory() as place:
        picture = str(Path(place) / "picture.png")
        explorer.picture(5).save(picture)
        questions = questions_of(explorer, picture)
        bare = {}
        for name, question in questions.items():
            question.bare(0)
            bare[name] = statistics.median(timed(lambda q=question, n=n: q.bare(n))[0] for n in range(1, 6))
        (Path(place) / "served").mkdir()
        with serving(Path(place) / "served", args.dataset) as served:
            fetched, _ = timed(lambda: urllib.request.urlopen(served.url).read())
            told = painted(served)
            wrong, failed = ask_all(served, questions, bare, args.users, args.rounds)
    print(
        f"\n{failed} answers failed and {wrong} differed from those asked alone, of "
        f"{args.users * args.rounds * len(questions)}. The process listened {served.seconds:.1f} s after its start "
        f"(models, {len(explorer.images)} pictures embedded); the page's HTML came {fetched:.2f} s after it was asked "
        f"for. {told}"
    )
    if failed or wrong:
        raise SystemExit(1)


def ask_all(
    served: Served, questions: dict[str, Question], bare: dict[str, float], num_users: int, rounds: int
) -> tuple[int, int]:
    """Ask everything alone and at once, print the table, and count answers that differ and that failed."""

    def user() -> Client:
        return Client(served.url, verbose=False, download_files=False)

    print("| question | answers | median s | 95% s | longest s | bare answer s | median / bare |")
    print("|---|---|---|---|---|---|---|")
    alone, expected = user(), {}
    for name, question in questions.items():
        if name != "bias of texts":  # of which the first of all is to be computed too
            question.ask(alone, 0)
        times = []
        for number in range(num_users):
            seconds, answer = timed(lambda q=question, n=number: q.ask(alone, n))
            times.append(seconds)
            expected[name, number] = json.dumps(answer)
        print(line(f"{name}, one user", times, bare[name]), flush=True)
    users = [user() for _ in range(num_users)]
    wrong = failed = 0
    with ThreadPoolExecutor(num_users) as pool:
        for name, question in questions.items():
            asked = [(client, number) for _ in range(rounds) for number, client in enumerate(users)]
            answers = pool.map(lambda each, q=question: timed(lambda: _caught(q.ask, *each)), asked)
            times = []
            for (_, number), (seconds, answer) in zip(asked, answers, strict=True):
                times.append(seconds)
                failed += isinstance(answer, Exception)
                wrong += not isinstance(answer, Exception) and json.dumps(answer) != expected[name, number]
            kept = " (kept)" if name == "bias of texts" else ""
            print(line(f"{name}{kept}, {num_users} users at once", times, bare[name]), flush=True)
    return wrong, failed


def _caught(question: Callable[[Client, int], Any], client: Client, number: int) -> Any:
    try:
        return question(client, number)
    except Exception as error:  # counted: one failure must not hide the others
        return error


if __name__ == "__main__":
    main()
