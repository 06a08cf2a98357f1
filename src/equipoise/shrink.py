"""Shrinking: the largest scale of a refused adapter that passes its gate, found on dev items.

A scale multiplies what the adapter adds to every layer. PEFT's own factor for that is alpha / rank, so a smaller
adapter has the same weights and a smaller `lora_alpha`: any program that reads PEFT adapters reads it rightly. The
adapters of domains belong together, and all get the same scale.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise.beginning import Lab
from equipoise.evaluation.gate import GateResult
from equipoise.model.adapters import CONFIG, WEIGHTS
from equipoise.outcome import Scores
from equipoise.recipe import Lora, Stage
from equipoise.recipe_lora import DomainLora, adapters_of
from equipoise.remedies import tried
from equipoise.run_folder import read_json, read_scores, sha256, write_json
from equipoise.scoring import measured, scores_in, write_scores

Found = tuple[float | None, list[dict[str, Any]]]
"""The scale that passed, if one did, and every scale that was tried with its numbers."""


def search(
    lab: Lab,
    stage: Stage,
    folder: Path,
    stack: Sequence[Path],
    whole: GateResult,
    judge: Callable[[Scores], GateResult],
) -> Found:
    """Try the scales of the gate, from large to small, until one passes.

    `whole` is the decision on the adapter as it was trained. `shrink/<scale>/` of the stage's `folder` gets the scores
    of the dev items, `shrink/found.json` says in the end which scale passed.
    """
    tries = [tried(1.0, whole)]
    passed = None
    for scale in stage.gate.scales:
        place = folder / "shrink" / f"{scale:g}"
        scores = scores_in(place / "scores")
        if scores is None:
            lab.run.log("shrink", stage=stage.name, scale=scale)
            _copy(folder / "adapter", place / "adapter", _alphas(stage.lora, scale))
            scores = measured(lab, [*stack, place / "adapter"], "dev")
            write_scores(place / "scores", scores)
        shutil.rmtree(place / "adapter", ignore_errors=True)
        result = judge(scores)
        tries.append(tried(scale, result))
        lab.display.say(f"gate {folder.name}: at {scale:g} of the adapter: {result.outcome}")
        if result.outcome == "pass":
            passed = scale
            break
    write_json(folder / "shrink" / "found.json", {"scale": passed, "tries": tries})
    return passed, tries


def found(folder: Path) -> Found | None:
    """What a finished search has found; None before its end."""
    path = folder / "shrink" / "found.json"
    if not path.is_file():
        return None
    record = read_json(path)
    return record["scale"], record["tries"]


def take(lab: Lab, stage: Stage, folder: Path, scale: float, stack: Sequence[Path]) -> Scores:
    """Give the stage's adapter the scale that passed, and return the scores of the point with it.

    The scores of the whole adapter move to `shrink/1/`. Each step may be done again after a kill.
    """
    point = lab.run.folder / "scores" / folder.name
    whole = folder / "shrink" / "1" / "scores"
    if not whole.exists():
        whole.parent.mkdir(parents=True, exist_ok=True)
        point.rename(whole)
    fold(folder, stage.lora, scale)
    known = scores_in(point)
    if known is not None:
        return known
    dev = read_scores(folder / "shrink" / f"{scale:g}" / "scores")
    test = measured(lab, [*stack, folder / "adapter"], "test")
    scores = {task: sorted([*dev[task], *test[task]], key=lambda score: score.id) for task in dev}
    write_scores(point, scores)
    return scores


def fold(folder: Path, lora: Lora | Mapping[str, DomainLora], scale: float) -> None:
    """Write the scaled `lora_alpha` into a stage's adapters, and the new hashes into `trained.json`.

    `lora` is what they were trained by, so that doing it again changes nothing.
    """
    trained = read_json(folder / "trained.json")
    files = dict(trained["files"])
    for part, alpha in _alphas(lora, scale).items():
        path = folder / "adapter" / part / CONFIG
        config = read_json(path)
        if config["lora_alpha"] != alpha:
            write_json(path, {**config, "lora_alpha": alpha})
        files[path.relative_to(folder).as_posix()] = sha256(path)
    if files != trained["files"]:
        write_json(folder / "trained.json", {**trained, "files": files})


def _alphas(lora: Lora | Mapping[str, DomainLora], scale: float) -> dict[str, float]:
    """`lora_alpha` of every adapter, by its place in the folder of adapters."""
    return {part: one.alpha * scale for part, one in adapters_of(lora).items()}


def _copy(adapter: Path, place: Path, alphas: Mapping[str, float]) -> None:
    """The same adapters with other alphas."""
    shutil.rmtree(place, ignore_errors=True)
    for part, alpha in alphas.items():
        (place / part).mkdir(parents=True)
        shutil.copyfile(adapter / part / WEIGHTS, place / part / WEIGHTS)
        write_json(place / part / CONFIG, {**read_json(adapter / part / CONFIG), "lora_alpha": alpha})
