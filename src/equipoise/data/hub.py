"""Data sets of the hub, at one commit; offline, what was fetched before."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, cast

from equipoise.data.files import first_line
from equipoise.records import InputError

HUB_ANSWERS = 10.0
"""Seconds within which the hub has to say which commit a revision is."""
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


def from_hub(id: str, revision: str | None, split: str, what: str) -> Any:
    """The `datasets.Dataset` of one split; its rows stay on the disk. Raises InputError where there is none."""
    import datasets  # heavy, and needed here alone
    from huggingface_hub.errors import HfHubHTTPError

    # HfHubHTTPError is made of OSError and of what the HTTP library of the day raises.
    unanswered = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    try:
        return _fetched(id, revision, split)
    except (*unanswered, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"{what}: {id}: no such local file or folder, and the hub gave nothing ({first_line(error)}); "
            "offline, give the path of a local folder in the hub's layout, or set HF_HUB_OFFLINE=1 to use what was "
            "fetched before"
        ) from None


@lru_cache(maxsize=8)  # so that what is identified is what is read, whatever happens on the hub in between
def _fetched(id: str, revision: str | None, split: str) -> Any:
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:  # `load_dataset` alone tries for half a minute where nobody answers, and then serves any commit it has
        commit = HfApi().dataset_info(id, revision=revision, timeout=HUB_ANSWERS).sha
    except OfflineModeIsEnabled:
        found = datasets.load_dataset(id, split=split)
        if _COMMIT.match(revision or "") and not all(revision in file["filename"] for file in found.cache_files):
            raise FileNotFoundError(f"offline, and commit {revision} was not fetched before") from None
        return found
    return datasets.load_dataset(id, revision=commit, split=split)
