"""Trackers: the figures of every training step, sent through Accelerate to the places that the recipe names.

They only watch. A run's own record is `train.jsonl`; nothing here is read again.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from equipoise.records import InputError

PACKAGES = ("tensorboard", "trackio", "wandb", "mlflow")
"""A tracker has the name of its package."""


class Trackers:
    """Open trackers; none of them in processes other than the main one."""

    def __init__(self, opened: Sequence[GeneralTracker]) -> None:
        self._opened = list(opened)

    def log(self, record: Mapping[str, Any], step: int) -> None:
        """Send the numbers of a record; `sources: {reddit: {loss: 1}}` becomes `reddit/loss: 1`."""
        for tracker in self._opened:
            tracker.log(flat(record), step=step)

    def finish(self) -> None:
        """Close all of them: what is logged is written when this returns."""
        for tracker in self._opened:
            tracker.finish()
        self._opened = []


def require_trackers(names: Sequence[str]) -> None:
    """Raise InputError where the package of a tracker is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"trackers: not installed: {', '.join(missing)}; pip install {' '.join(missing)} (or 'equipoise[track]' "
            f"for all of them), or leave it out"
        )


def open_trackers(names: Sequence[str], *, folder: Path, run_name: str, config: Mapping[str, Any]) -> Trackers:
    """Open trackers for one stage, in the main process only; `config` is shown beside the figures.

    tensorboard writes to `folder`/tensorboard/`run_name`. The others keep their own ways of being told where to write:
    trackio TRACKIO_DIR, mlflow MLFLOW_TRACKING_URI, wandb WANDB_MODE, WANDB_DIR and its login; there the project is
    `config`'s name. Raises InputError where a package is missing or refuses (no login, for example).
    """
    require_trackers(names)
    if not names or not PartialState().is_main_process:
        return Trackers([])
    project = str(config.get("name", "equipoise"))
    opened = [_make(name, folder, project, run_name) for name in dict.fromkeys(names)]
    for tracker in opened:
        try:
            tracker.start()
        except _refusals(tracker.name) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"trackers: {tracker.name} cannot be opened: {reason}") from None
        tracker.store_init_configuration(settings(config))
    return Trackers(opened)


def _refusals(name: str) -> tuple[type[BaseException], ...]:
    """The errors with which a tracker's package says that it is not set up."""
    module, error = {"wandb": ("wandb.errors", "Error"), "mlflow": ("mlflow.exceptions", "MlflowException")}.get(
        name, ("", "")
    )
    return (getattr(import_module(module), error),) if module else ()


def _make(name: str, folder: Path, project: str, run_name: str) -> GeneralTracker:
    if name == "tensorboard":
        return TensorBoardTracker(run_name, str(folder / "tensorboard"))
    if name == "mlflow":
        return MLflowTracker(experiment_name=project, run_name=run_name)
    return {"wandb": WandBTracker, "trackio": TrackioTracker}[name](project, name=run_name)


def flat(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name, those of a source or of a domain's adapter as `name/figure`; no step."""
    numbers = {key: float(value) for key, value in record.items() if _is_number(value) and key != "step"}
    for name, figures in (*record.get("sources", {}).items(), *record.get("adapters", {}).items()):
        numbers |= {f"{name}/{key}": float(value) for key, value in figures.items() if _is_number(value)}
    return numbers


def settings(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """A nested configuration as `a.b.c: value`; what is no number, truth value or text becomes a text."""
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in _leaves(config)}


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not value or not isinstance(value, Mapping | list):
        yield prefix, value
        return
    for key, child in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
