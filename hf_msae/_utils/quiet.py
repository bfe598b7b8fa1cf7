"""Keeping the progress bars and log lines of libraries out of files and pipes."""

from __future__ import annotations

import os
import sys

from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils.logging import set_verbosity_error
from transformers.utils import logging


def hide_progress_bars() -> None:
    """Turn off the bars of transformers, huggingface_hub and datasets."""
    logging.disable_progress_bar()
    disable_progress_bars()
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    else:  # read when datasets is imported, which takes a second and not every command needs
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"


def hide_library_lines() -> None:
    """Turn off what these libraries log below errors, unless their environment variables ask for it."""
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    if "HF_HUB_VERBOSITY" not in os.environ:
        set_verbosity_error()
    if "datasets" not in sys.modules:
        os.environ.setdefault("DATASETS_VERBOSITY", "error")
    elif "DATASETS_VERBOSITY" not in os.environ:
        sys.modules["datasets"].logging.set_verbosity_error()
