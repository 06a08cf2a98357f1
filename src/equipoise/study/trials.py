"""Trials in Optuna's storage: what is searched, who works on which trial, and what became of each.

The storage is the only place where processes and machines meet: it hands out trials, and what was told to it stays.
A trial's folder is named by its values, so a trial that was killed goes on in the folder where it was, and values
that come up twice are run once.
"""

from __future__ import annotations

import fcntl
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from equipoise.recipe import Recipe
from equipoise.recipe_file import fingerprint
from equipoise.records import InputError, content_id
from equipoise.study.plan_study import Entry
from equipoise.study.space import Choice, Dimension


@dataclass(frozen=True)
class Search:
    """What is searched: a recipe file (`loaded`), the space, where the runs go, and the seed of the choices."""

    recipe: Path
    loaded: Recipe
    space: Sequence[Dimension]
    out: Path
    seed: int

    @property
    def domains(self) -> list[str]:
        """The objectives: one for each domain, its gain over the base on dev items."""
        return list(self.loaded.evaluation.tasks.chosen())

    @property
    def name(self) -> str:
        """Name of the search in its storage: another recipe or space is another search."""
        space = [[one.key, one.values.model_dump(mode="json")] for one in self.space]
        return f"{self.loaded.name}-{content_id([fingerprint(self.loaded), space])[:8]}"

    def entry(self, params: Mapping[str, Any]) -> Entry:
        """The run of a trial."""
        overrides = tuple(one.override(_value(one, params[one.key])) for one in self.space)
        return Entry(
            self.recipe,
            self.loaded.name,
            self.loaded.seed,
            self.out / f"trial-{content_id([self.name, *overrides])[:10]}",
            overrides,
        )


def open_storage(place: str) -> Any:
    """Optuna's storage: a URL as it is, else a file (a journal that several processes may write).

    Raises InputError where Optuna is not installed or a URL leads nowhere.
    """
    optuna = optuna_library()
    if "://" in place:
        try:
            return optuna.storages.get_storage(place)
        except (ImportError, ValueError) as error:
            raise InputError(f"--storage {place}: {str(error).splitlines()[0]}") from None
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    journal = optuna.storages.journal
    return optuna.storages.JournalStorage(journal.JournalFileBackend(place))


def trial_rows(study: Any, search: Search) -> list[dict[str, Any]]:
    """All trials as JSON, without those that were killed and went on under another number."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs["again"] for trial in trials if "again" in trial.user_attrs}
    return [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "params": {one.key: _value(one, trial.params[one.key]) for one in search.space if one.key in trial.params},
            "gains": dict(zip(search.domains, trial.values, strict=True)) if trial.values else None,
            "run": trial.user_attrs.get("run"),
            "missed": trial.user_attrs.get("missed", 0.0),
            "reason": trial.user_attrs.get("reason", ""),
        }
        for trial in trials
        if trial.number not in again and trial.state.name != "WAITING"
    ]


@contextmanager
def claim(study: Any, search: Search, trials: int, sampler: Callable[[int], Any]) -> Iterator[Any]:
    """Yield a trial that this process alone works on, or None when there are enough.

    Trials that a killed process of this machine left behind are taken up first.
    """
    folder = search.out / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    held: list[TextIO] = []
    try:
        with (folder / "ask").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            _take_up(study, search, folder)
            running = len(trial_rows(study, search))
            trial = None
            if running < trials or _waiting(study):
                study.sampler = sampler(running)
                trial = study.ask({one.key: _distribution(one) for one in search.space})
                trial.set_user_attr("host", _host(search))
                held.append((folder / str(trial.number)).open("w"))
                fcntl.flock(held[0], fcntl.LOCK_EX)
        yield trial
    finally:
        for file in held:
            file.close()


def _take_up(study: Any, search: Search, folder: Path) -> None:
    """Trials of this machine that nobody works on any more are put in line again, with the same values."""
    optuna = optuna_library()
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if trial.user_attrs.get("host") != _host(search):
            continue
        with (folder / str(trial.number)).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def _waiting(study: Any) -> bool:
    return bool(study.get_trials(deepcopy=False, states=(optuna_library().trial.TrialState.WAITING,)))


def _host(search: Search) -> str:
    return f"{platform.node()}:{search.out.resolve()}"


def _distribution(one: Dimension) -> Any:
    """Optuna's form of a dimension; values of a choice stand there as JSON, so they may be of any kind."""
    kinds = optuna_library().distributions
    values = one.values
    if isinstance(values, Choice):
        return kinds.CategoricalDistribution([json.dumps(value) for value in values.values])
    if values.whole:
        return kinds.IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return kinds.FloatDistribution(float(values.low), float(values.high), log=values.log, step=values.step)


def _value(one: Dimension, param: Any) -> Any:
    return json.loads(param) if isinstance(one.values, Choice) else param


def optuna_library() -> Any:
    """Return the module; raises InputError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise InputError("search: Optuna is not installed; do: pip install 'equipoise[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
