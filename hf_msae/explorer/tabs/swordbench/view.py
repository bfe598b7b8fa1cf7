"""SwordBench: how well methods remove a concept, and what they damage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ...answers import answering, in_place
from ...components.waiting import Loading, on_first_open
from ...rendering import macros
from ..common import BUSY
from .answer import found_on, methods_of, numbers

TITLE = "SwordBench"
html = macros("swordbench/view.html")
_EMPTY = macros("components.html").empty("What was found appears here.")


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """Build the page."""
    gr.Markdown("## How well does steering work?", elem_classes="msae-lead")
    gr.HTML(html.about())
    with gr.Row():
        task = gr.Dropdown([], value=None, label="Task", allow_custom_value=True, min_width=220)
        method = gr.Dropdown([], value=None, label="Method of the heat map", allow_custom_value=True, min_width=220)
    message = gr.HTML(_EMPTY, label="What was found")
    with gr.Accordion("The numbers", open=False):
        table = gr.JSON(label="All numbers", show_label=False)
    task.api_info = lambda: {"type": "string", "description": "the name of a task of the run"}
    method.api_info = lambda: {"type": "string", "description": 'the name of a method, or "" for the best'}

    def swordbench_(task: Any, method: Any) -> tuple[str, dict[str, Any]]:
        """Show what a run of SwordBench found on a task: ranks, doses that work, figures, and what is not defined.

        Args:
            task: Name of the task.
            method: The method of the heat map of concepts; "" for the best.

        Returns:
            Tables and figures (HTML), and their numbers.
        """
        explorer = loading.get()
        return html.page(found_on(explorer, task, method)), numbers(explorer, task)

    def refused(message: str) -> tuple[Any, ...]:
        return message, None

    def chosen(task: Any) -> tuple[Any, ...]:
        """List the methods of the task, and show what was found."""
        methods = methods_of(loading.get(), task)
        listed = gr.Dropdown(choices=methods, value=next(iter(methods), None))
        return (listed, *swordbench_(task, None))

    def start(task: Any) -> tuple[Any, ...]:
        tasks = loading.get().swordbench.tasks
        return (gr.Dropdown(choices=tasks, value=task or tasks[0]), *chosen(task or tasks[0]))

    outputs = [message, table]
    on_first_open(loading, on_open, start, [task], [task, method, *outputs])
    refused_task = in_place(chosen, lambda message: (gr.skip(), *refused(message)))
    task.input(answering(refused_task), task, [method, *outputs], show_progress_on=message, **BUSY)
    method.input(answering(in_place(swordbench_, refused)), [task, method], outputs, show_progress_on=message, **BUSY)
    gr.on([], answering(swordbench_), [task, method], outputs, preprocess=False, api_name="swordbench")
