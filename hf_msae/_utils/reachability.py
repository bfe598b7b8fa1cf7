"""Whether the Hub can be reached, found out at once."""

from __future__ import annotations

from pathlib import Path

import datasets
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.file_download import repo_folder_name

_SECONDS = 10  # that the Hub gets to answer whether a dataset exists


def refuse_unreachable(name: str) -> None:
    """Refuse a dataset that is not in a cache if the Hub cannot be reached, which downloads retry for a minute."""
    in_hub_cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset")
    converted = Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")
    if constants.is_offline_mode() or in_hub_cache.is_dir() or converted.is_dir():
        return
    try:
        HfApi().dataset_info(name, timeout=_SECONDS)
    except (HfHubHTTPError, HFValidationError):  # it answers; what follows has better errors
        pass
    except (HTTPError, OSError) as error:
        raise FileNotFoundError(
            f"{name} is neither a local file or folder nor a dataset in the cache, and the Hub cannot be reached "
            f"({error})"
        ) from error
