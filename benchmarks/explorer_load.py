"""The concept explorer under load: time to the first paint, time to answer, and whether users' answers get mixed up.

    PYTHONPATH=. python benchmarks/explorer_load.py --users 20

Starts `hf-msae demo` on 127.0.0.1 and asks each endpoint as a single user. Then many users ask at once, each with
their own edits, and their answers are compared with those given to the single user. The table also shows how long the
same answer takes without a server. The first paint is measured in Chromium if playwright and Chromium are installed.
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
from hf_msae.explorer.tabs.bias.answer import TEXTS, Target, explain_classifier, usable_columns
from hf_msae.explorer.tabs.concepts.answer import listing
from hf_msae.explorer.tabs.match.answer import match
from hf_msae.explorer.tabs.search.answer import read_strengths, search
from hf_msae.explorer.tabs.see.answer import see
from hf_msae.explorer.tabs.steer.answer import read_edits, read_labels, steer
from tests.explorer.serving import Served, serving

CONCEPTS = ("star", "red", "night", "circle", "blue", "snow", "small", "frame", "green", "beach")
GRANULARITIES = ("8", "16", "32", "64", "all")
LABELS = "a star, a circle, a square"
_FORGETFUL_DEMO = (
    "-c",
    # Users ask about the same texts several times, and answers about texts are to be computed each time.
    "from hf_msae.explorer.tabs.bias import answer; answer._of_texts = answer.Kept(0); "
    "from hf_msae.cli.demo import main; main()",
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass(frozen=True)
class Question:
    """A question that users ask.

    Attributes:
        ask: Asks the question of the user with the given number through their client. Returns what can be compared.
        bare: Computes the answer to the question with the given number without a server, and without a cache.
    """

    ask: Callable[[Client, int], Any]
    bare: Callable[[int], Any]


def questions_of(explorer: Explorer, picture: str) -> dict[str, Question]:
    """The questions by name. `picture` is the path of the picture that users send."""
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
        # Columns are explained before anybody asks.
        "bias of a column": Question(
            lambda client, user: client.predict(columns[user % len(columns)], "", "", api_name="/bias")[1],
            lambda number: explain_classifier(explorer, Target(column=columns[number % len(columns)])),
        ),
        "bias of texts": Question(
            lambda client, user: client.predict(TEXTS, *texts(user), api_name="/bias")[1],
            lambda number: explain_classifier(explorer, Target(texts=texts(number))),
        ),
    }


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that the call takes, and its result."""
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
    """How soon a browser shows the page and the answer about the example, as a sentence."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return "The first paint was not measured: playwright is not installed (pip install 'hf_msae[browser]')."
    if CHROMIUM is None:
        return "The first paint was not measured: Chromium is not installed."
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
        f"In Chromium the heading was visible {headings[0]:.2f} s after the first navigation, {cold:.1f} s after the "
        f"start of the process, and {statistics.median(headings[1:]):.2f} s after later navigations; the answer about "
        f"the example, {answers[0]:.2f} s after the first and {statistics.median(answers[1:]):.2f} s after later ones "
        "(medians of five, each with an empty cache)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20, help="Number of users that ask at once.")
    parser.add_argument("--rounds", type=int, default=3, help="Number of questions of each kind that each user asks.")
    parser.add_argument("--dataset", default="scenes:test:1000:7", help="Pictures to show, as for hf-msae demo.")
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
        with serving(Path(place) / "served", args.dataset, program=_FORGETFUL_DEMO) as served:
            fetched, _ = timed(lambda: urllib.request.urlopen(served.url).read())
            paint = painted(served)
            wrong, failed = ask_all(served, questions, bare, args.users, args.rounds)
    print(
        f"\nOf the {args.users * args.rounds * len(questions)} answers given to simultaneous users, {failed} failed "
        f"and {wrong} differed from the answers given to one user alone. The process was listening "
        f"{served.seconds:.1f} s after its start (loading the models and embedding {len(explorer.images)} pictures), "
        f"and the page's HTML arrived {fetched:.2f} s after the request. {paint}"
    )
    if failed or wrong:
        raise SystemExit(1)


def ask_all(
    served: Served, questions: dict[str, Question], bare: dict[str, float], num_users: int, rounds: int
) -> tuple[int, int]:
    """Ask as one user and as many, print the table, and count the answers that differ and those that failed."""

    def user() -> Client:
        return Client(served.url, verbose=False, download_files=False)

    print(
        "| question | answers | median (s) | 95th percentile (s) | longest (s) "
        "| without a server (s) | median / without a server |"
    )
    print("|---|---|---|---|---|---|---|")
    alone, expected = user(), {}
    for name, question in questions.items():
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
            print(line(f"{name}, {num_users} users at once", times, bare[name]), flush=True)
    return wrong, failed


def _caught(question: Callable[[Client, int], Any], client: Client, number: int) -> Any:
    try:
        return question(client, number)
    except Exception as error:  # counted, so that one failure does not hide the others
        return error


if __name__ == "__main__":
    main()
