"""Compare steering methods: do they remove a concept from embeddings, and nothing else?

Every method is fitted to the concepts of every task, on training rows in which a label and one concept, the bias, are
correlated. The test rows show whether the concept is found and removed, whether other concepts remain, and how much
accuracy a classifier of the label gains where the bias misled it and loses elsewhere. Finished cells (a method on a
task with a seed) are kept, so an interrupted run continues with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .._utils.argument_parser import MSAEArgumentParser, flag
from .._utils.paths import file_name
from .checks import changed, refuse_without

if TYPE_CHECKING:
    import pandas as pd

    from ..steering import Edit, SwordBenchResult, Task

EXAMPLE = """\
  hf-msae swordbench --tasks gaussian --methods mean_difference lda leace --output outputs/swordbench

  hf-msae swordbench --tasks scenes_background clipart_artifact --methods all --num_workers 2 \\
      --output outputs/swordbench

  hf-msae swordbench --tasks scenes_artifact --correlation 0.7 --hook_point vision.layers.1 --methods leace lda \\
      --output outputs/swordbench-tokens

  hf-msae swordbench --data embeddings/celeba --concepts Male Smiling Young --target Blond_Hair --bias Male \\
      --methods leace lda --output outputs/celeba-swordbench

  hf-msae swordbench --tasks scenes_background --methods leace --submission "my LEACE" --output outputs/submission"""

_OPTIONS = ("correlation", "num_rows", "hook_point")  # of tasks


@dataclass
class SwordBenchArguments:
    """What is compared, on what, and where results go."""

    _argument_group_name: ClassVar[str] = "swordbench"

    output: str | None = flag(
        "Folder of the results: results.json, tables, figures and the finished cells.", None, aliases=("--output_dir",)
    )
    tasks: list[str] = flag("Tasks to run, by name; --available lists them.", [])
    methods: list[str] = flag(
        "Methods to compare, by name, or `all`: those that need only labels, and those that need --msae or "
        "--backbone if it is given. --available lists them.",
        ["all"],
    )
    msae: str | None = flag(
        "MSAE of the same embeddings, for the methods that need one: a folder, a Hub id or a released name.", None
    )
    backbone: str | None = flag(
        "Backbone of the embeddings, a folder, a Hub id or a built-in name, for the methods that are fitted by name: "
        "its text tower reads the names of the concepts.",
        None,
    )
    num_latents: int | None = flag(
        "Number of latents that the method msae sets to zero. By default, it shifts all latents of rows with the "
        "concept instead.",
        None,
    )
    data: str | None = flag("Embeddings with columns of labels, for your own task.", None)
    concepts: list[str] = flag("Columns of --data that are concepts: true or false, or 1 and 0.", [])
    target: str | None = flag("Column of --data with the label that a classifier predicts.", None)
    bias: str | None = flag("The one of --concepts that is spuriously correlated with the label.", None)
    verify: bool = flag("Compare files of embeddings with their recorded checksums before they are first read.", True)
    split_column: str | None = flag(
        "Column of --data that marks training and test rows: train and test, or 0 and 2. Without it, each seed "
        "splits the rows at random.",
        None,
    )
    test_share: float = flag(
        "Fraction of the rows of --data from which test rows are drawn, without --split_column.", 0.5
    )
    balance_test: bool | None = flag(
        "Balance the test rows of --data: for each label, as many with the bias as without it; the rest are left "
        "out. Defaults to true without --split_column, and to false with it.",
        None,
    )
    correlation: float | None = flag("Correlation of label and bias in the training rows of --tasks.", None)
    num_rows: int | None = flag("Maximum number of rows of each task.", None)
    hook_point: str | None = flag(
        "Hook point of the embeddings, such as vision.layers.6. For --tasks, its tokens are averaged; for --data, it "
        "is the column of embeddings. Defaults to image_embeds.",
        None,
    )
    seeds: list[int] = flag("Random seeds of tasks and fits.", [0, 1, 2])
    num_workers: int = flag("Number of processes.", 1)
    only_bias: bool = flag(
        "Measure only the bias of each task and no other concepts, in a fraction of the time.", False
    )
    submission: str | None = flag(
        "Name on the leaderboard: write the results of the run's only method to a JSON file that can be submitted.",
        None,
    )
    url: str | None = flag("Web page about the method of --submission.", None)
    available: bool = flag("List tasks and methods, and stop.", False)
    disable_tqdm: bool = flag("Hide the progress bar, which is only shown on a terminal.", False)

    def __post_init__(self):
        given = [bool(self.data), bool(self.target), bool(self.bias), bool(self.concepts)]
        if any(given) and not all(given):
            raise ValueError("a task of your own needs all of --data, --concepts, --target and --bias")
        if self.bias and self.bias not in self.concepts:
            raise ValueError(f"--bias {self.bias} is none of --concepts {' '.join(self.concepts)}")
        if self.available:
            return
        if not self.output:
            raise ValueError("name a folder for the results with --output")
        if not (self.tasks or self.data):
            raise ValueError("name at least one of --tasks, or a task of your own with --data")
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share must lie between 0 and 1, got {self.test_share}")
        refuse_without(self, "data", "split_column", "test_share", "balance_test")
        if self.split_column and changed(self, ["test_share"]):
            raise ValueError("--split_column says which rows to test on: leave --test_share out")
        if self.num_latents is not None and "msae" not in self.methods and not (self.msae and "all" in self.methods):
            raise ValueError("--num_latents is of the method msae, which is none of --methods: leave it out")
        if self.correlation is not None and not self.tasks:
            raise ValueError("--correlation is for --tasks: --data has the correlation that it has")
        if self.num_rows is not None and self.num_rows < 8:
            raise ValueError(f"num_rows must be at least 8, got {self.num_rows}")
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be positive, got {self.num_workers}")
        if self.url and not self.submission:
            raise ValueError("--url is the address of a method: name it with --submission")
        if self.submission:
            if self.data or len(self.methods) != 1 or self.methods == ["all"]:
                raise ValueError("--submission is for one method, named with --methods, on tasks named with --tasks")
            if given := [name for name in _OPTIONS if getattr(self, name) is not None]:
                raise ValueError(f"--submission is for tasks with their default settings, without --{given[0]}")
            if sorted(self.seeds) != [0, 1, 2]:
                raise ValueError(f"--submission needs the seeds 0 1 2, got {' '.join(map(str, self.seeds))}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    parser = MSAEArgumentParser([SwordBenchArguments], __doc__, EXAMPLE, prog="hf-msae swordbench")
    (args,) = parser.parse(argv)
    from ..steering import METHODS, Submission, run_swordbench
    from ..steering.submission import check_text, check_url
    from ..steering.tasks import TASKS

    if args.available:
        for title, found in (("tasks", TASKS), ("methods", METHODS)):
            print(f"{title}:")
            for name, each in found.items():
                print(f"  {name:<22}{(each.__doc__ or '').strip().splitlines()[0]}")
        return
    parser.kept_in = args.output
    with parser.reporting_errors():
        tasks = chosen_tasks(args)
        methods = chosen_methods(args)
        if args.submission:
            check_text("submission", args.submission)
            check_url(args.url)
        tasks += [own_task(args)] if args.data else []
        options = {"progress": not args.disable_tqdm, "backbone": args.backbone, "only_bias": args.only_bias}
        result = run_swordbench(tasks, methods, args.output, args.seeds, args.num_workers, **options)
        write(result, args.output)
        if args.submission:
            submission = Path(args.output).expanduser() / f"{file_name(args.submission)}.json"
            Submission.of_result(result, *methods, args.submission, args.url).save(submission)
    for title, equal_dose in (("Each method at the dose of its removal", False), ("All at equal doses", True)):
        print(f"{title}:\n{shown(result.ranking(equal_dose))}\n")
    print("\n".join(filter(None, (result.verdict(), *result.remarks(), f"Tables and figures: {args.output}"))))
    if args.submission:
        print(f"Submission: {submission}; leaderboard/README.md says where it goes")
    for row in result.undefined().itertuples():
        print(f"{row.task}: {row.metric} is not defined in {row.cells} cells ({', '.join(row.methods)}): {row.reason}")


def shown(ranking: pd.DataFrame) -> str:
    """Return ranks as text, with notes and what is missing in lines below the table of each task."""
    if ranking.empty:
        return "not defined"
    lines = []
    for task, rows in ranking.groupby("task", sort=False):
        lines.append(rows.drop(columns=["missing", "note"]).to_string(index=False, float_format="{:.3f}".format))
        lines += [f"  {row.method}: {row.note}" for row in rows.itertuples() if row.note]
        lines += [f"  ranks on {task} are {missing}" for missing in rows["missing"].unique() if missing]
    return "\n".join(lines)


def default_methods(msae: str | None = None, backbone: str | None = None) -> list[str]:
    """Return the methods that need nothing but labels and what is given."""
    from ..steering import METHODS

    given = {"a name": backbone, "an MSAE": msae, "a name and an MSAE": backbone and msae, "labels": True}
    return [name for name, method in METHODS.items() if given[method.needs]]


def chosen_tasks(args: SwordBenchArguments) -> list[Callable[..., Task]]:
    """Return what makes the tasks of a run, with the options that are given."""
    import inspect

    from ..steering.tasks import TASKS

    given = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    found = []
    for name in args.tasks:
        makes = TASKS[name]
        if unknown := [option for option in given if option not in inspect.signature(makes).parameters]:
            raise ValueError(f"the task {name} has no --{unknown[0]}")
        found.append(partial(makes, **given) if given else makes)
    return found


def chosen_methods(args: SwordBenchArguments) -> dict[str, Edit]:
    """Return the methods of a run, not yet fitted."""
    from ..steering import METHODS

    possible = default_methods(args.msae, args.backbone)
    chosen = {}
    for name in possible if args.methods == ["all"] else args.methods:
        method = METHODS[name]
        if name not in possible:
            raise ValueError(f"the method {name} needs {method.needs}: see --msae and --backbone")
        options = {"msae": args.msae} if "MSAE" in method.needs else {}
        if name == "msae":
            options["num_latents"] = args.num_latents
        chosen[name] = method(**options)
    return chosen


def own_task(args: SwordBenchArguments) -> Task | Callable[..., Task]:
    """Return a task of the user's embeddings; without a column of splits, what makes one of each seed."""
    from ..embeddings import load_embeddings
    from ..steering.own_data import task_from_embeddings

    embeddings = load_embeddings(args.data, hook_point=args.hook_point or "image_embeds", verify=args.verify)
    options = {"split_column": args.split_column, "test_share": args.test_share, "balance_test": args.balance_test}
    options |= {"num_rows": args.num_rows}
    make = partial(task_from_embeddings, embeddings, args.target, args.bias, args.concepts, **options)
    return make(seed=args.seeds[0]) if args.split_column else make


def write(result: SwordBenchResult, output: str) -> None:
    """Write the tables and figures of a run: figures, ranks, curves over doses, doses that work, and concepts."""
    from .._utils.atomic import atomic_path
    from ..plotting import save_figure

    folder = Path(output).expanduser()
    ranking = result.ranking()
    tables = {"figures": result.frame, "summary": result.summary(None), "ranking": ranking}
    tables |= {"ranking_equal_dose": result.ranking(equal_dose=True), "working_doses": result.working_doses()}
    for name, table in {**tables, "doses": result.doses, "injection": result.injection}.items():
        with atomic_path(folder / f"{name}.csv") as path:
            table.to_csv(path, index=False)
    for pattern in ("success_against_damage.png", "doses.png", "injection.png", "cross_concepts_*.png"):
        for figure in folder.glob(pattern):  # of an earlier run, whose tables these are not
            figure.unlink()
    if not result.doses.empty:
        save_figure(result.plot(), folder / "success_against_damage.png")
        save_figure(result.plot_doses(), folder / "doses.png")
    if not result.injection.empty:
        save_figure(result.plot_injection(), folder / "injection.png")
    for task, rows in ranking.groupby("task", sort=False):
        if result.of_task(task).cross["found"].nunique() > 1:
            heat = result.plot_cross(task, rows["method"].iloc[0])
            save_figure(heat, folder / f"cross_concepts_{file_name(task)}.png")
