"""A search over a recipe's values with Optuna: every trial is a run, judged on dev items alone."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.progress import Display
from equipoise.records import content_id
from equipoise.run_folder import Run
from equipoise.study.entrants import read_entrants
from equipoise.study.nursery import Nursery
from equipoise.study.plan_study import Entry
from equipoise.study.process import Child, Ended
from equipoise.study.refusals import refused_stage, violations
from equipoise.study.trials import Search, claim, optuna_library, trial_rows

Runner = Callable[[Entry, Path], Ended]
"""Runs an entry (with the folder of its log) until it is done, or until a gate has refused a stage."""
REFUSED = "refused"


def run_search(search: Search, storage: Any, trials: int, run: Runner, display: Display) -> list[dict[str, Any]]:
    """Run trials until there are `trials` in the storage, counting those of other processes; return all of them.

    A refused stage ends a trial at once (`pruned`); a run that fails is a failed trial, and the search goes on.
    """
    optuna = optuna_library()
    told: dict[int, list[float]] = {}

    def sampler(number: int) -> Any:
        """A sampler for one trial alone: an interrupted search makes the choices that it would have made."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.samplers.TPESampler(
                seed=int(content_id(["search", search.seed, number])[:8], 16),
                constraints_func=lambda trial: told.get(trial.number, [0.0]),
            )

    study = optuna.create_study(
        storage=storage,
        study_name=search.name,
        load_if_exists=True,
        directions=["maximize"] * len(search.domains),
        sampler=sampler(0),
    )
    while True:
        with claim(study, search, trials, sampler) as trial:
            if trial is None:
                break
            entry = search.entry(trial.params)
            trial.set_user_attr("run", entry.name)
            display.say(f"trial {trial.number}: {', '.join(entry.overrides)}")
            result = run(entry, search.out / "logs")
            told[trial.number] = violations(Run(entry.folder), search.loaded)
            trial.set_user_attr("missed", max(0.0, *told[trial.number]))
            display.say(f"trial {trial.number}: {_tell(optuna, study, search, trial, entry, result)}")
    return trial_rows(study, search)


def _tell(optuna: Any, study: Any, search: Search, trial: Any, entry: Entry, result: Ended) -> str:
    """Tell the storage how a trial ended, and return it in words."""
    states = optuna.trial.TrialState
    refused = refused_stage(Run(entry.folder))
    if refused:
        trial.set_user_attr("reason", f"{REFUSED}: {refused}")
        study.tell(trial, state=states.PRUNED)
        return f"the gate refused {refused}; pruned"
    if not Run(entry.folder).finished:
        trial.set_user_attr("reason", result.reason)
        study.tell(trial, state=states.FAIL)
        return f"FAILED: {result.reason}"
    gains = dev_gains(entry.folder)
    empty = [domain for domain, gain in gains.items() if not np.isfinite(gain)]
    if empty:
        trial.set_user_attr("reason", f"{empty[0]}: no dev item has a score")
        study.tell(trial, state=states.FAIL)
        return f"FAILED: {empty[0]}: no dev item has a score"
    study.tell(trial, [gains[domain] for domain in search.domains])
    return ", ".join(f"{domain} {gains[domain]:+.3g}" for domain in search.domains)


def dev_gains(folder: Path) -> dict[str, float]:
    """The mean gain over the base on the dev items of a finished run, by domain."""
    entrants = read_entrants([folder], "dev")
    (one,) = entrants.rows
    return {name: float(np.nanmean(one.after[name] - one.before[name])) for name in entrants.domains}


def in_a_process(nursery: Nursery, entry: Entry, logs: Path) -> Ended:
    """Run a trial in a process of its own, and stop it as soon as a gate has refused a stage."""
    child = Child(entry, logs / f"{entry.name}.log", nursery.spawn)
    try:
        while (ended := child.poll()) is None and not refused_stage(Run(entry.folder)):
            time.sleep(0.2)
    finally:
        child.stop()
    return ended or Ended(0, 0.0, REFUSED, platform.node())
