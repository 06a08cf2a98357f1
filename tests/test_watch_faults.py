"""What a failed run leaves behind, and what is said of a run folder that was edited, cut or lost a part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import equipoise
from equipoise import cli, stages, watch
from equipoise.progress import Silent
from equipoise.recipe import Recipe
from equipoise.recipe_file import parse_recipe
from equipoise.records import InputError
from equipoise.run_folder import Run, hashes, read_json, write_json, write_lines, write_text
from equipoise.watch_read import Reader
from live_runs import SHORT, ended, failing, going, mark


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_a_run_that_failed_says_why(tmp_path: Path) -> None:
    """The reason is shown until the run is resumed: while a process holds it, and once it has begun again."""
    folder = failing(tmp_path / "failing")
    code, output = invoke("watch", folder)
    assert code == 1 and "step 4: the loss is NaN" in output and "--resume" in output and "\x1b" not in output
    seen = watch.look(folder, Reader())
    assert (seen.state, seen.doing, seen.stages[0].state) == ("failed", "", "interrupted")
    assert seen.elapsed_s == 25.0
    (folder / ".lock").unlink()  # on another machine, where nobody sees the process
    assert watch.look(folder, Reader(), now=1026.0).state == "failed"
    mark(folder)
    again = watch.look(folder, Reader())
    assert (again.state, again.doing, again.left_s) == ("running", "beginning again", None)
    with Run(folder).lock():
        Run(folder).log("begin", recipe="going", resumed=True)
    assert watch.look(folder, Reader()).state == "stopped"


def test_a_real_run_leaves_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that destroys the weights; then a --resume that is refused, which changes nothing."""
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    recipe = parse_recipe(SHORT, ["stages.0.optim.learning_rate=1e30"])
    with pytest.raises(RuntimeError, match="step 2") as stopped:
        equipoise.run(recipe, out=tmp_path)
    log = tmp_path / "short" / "events.jsonl"
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["event"] == "failed" and last["error"] == str(stopped.value).splitlines()[0][:300]
    assert watch.look(tmp_path / "short", Reader()).state == "failed"
    before = log.read_bytes()
    provenance = tmp_path / "short" / "provenance.json"
    write_json(provenance, {**read_json(provenance), "model": "another"})
    with pytest.raises(InputError, match="model"):
        equipoise.run(recipe, out=tmp_path, resume=True)
    assert log.read_bytes() == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError(f"{Path.home()}/x: wrong\nsecond line"), "~/x: wrong"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (KeyError("a"), "KeyError: 'a'"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("x" * 400), f"ValueError: {'x' * 288}"),
        (KeyboardInterrupt(), None),
    ],
)
def test_what_is_left_of_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str | None
) -> None:
    """Every error goes on to who called; an interruption leaves nothing, and a folder that is no run neither."""

    def broken(recipe: Recipe, text: str, run: Run, *others: object) -> None:
        if text:
            write_text(run.folder / "recipe.json", "{}")
        raise error

    monkeypatch.setattr(stages, "begin", broken)
    recipe = parse_recipe(SHORT)
    for name, text in (("run", "x"), ("none", "")):
        with pytest.raises(type(error)):
            stages.run_recipe(recipe, text, Run(tmp_path / name), Silent())
    assert not (tmp_path / "none").exists()
    log = tmp_path / "run" / "events.jsonl"
    assert (json.loads(log.read_text())["error"] if log.is_file() else None) == said


def test_a_verdict_that_was_edited_is_said(tmp_path: Path) -> None:
    folder = ended(tmp_path / "ended")
    write_json(folder / "done", {"files": hashes(folder)})
    assert not watch.look(folder, Reader()).changed
    path = folder / "verdict.json"
    path.write_text(path.read_text().replace("worse", "improved"))
    seen = watch.look(folder, Reader())
    assert seen.changed and "verdict.json has changed since the run ended" in seen.notes[0]
    assert "\nthe verdict has changed since the run ended" in invoke("watch", folder, "--once")[1]


def test_scores_that_were_cut_are_said(tmp_path: Path) -> None:
    """The run has 6 items; two points have scores of 4 and of 5 of them, the second one of 3 dev items."""
    folder = going(tmp_path / "going")
    mark(folder)
    more = [{"split": "dev", "value": 1.0}] * 3 + [{"split": "test", "value": 1.0}] * 2
    write_lines(folder / "scores" / "1-first" / "tatqa.jsonl", more)
    said = "scores/base/tatqa.jsonl has 4 of 5 items: its mean is of those alone"
    assert watch.look(folder, Reader()).notes == (said,)
    write_lines(folder / "items" / "tatqa.jsonl", [{"id": str(number)} for number in range(6)])
    with (folder / "scores" / "base" / "tatqa.jsonl").open("a") as file:
        file.write("[3]\n")  # no score
    assert [note.partition(":")[0] for note in watch.look(folder, Reader()).notes] == [
        "scores/base/tatqa.jsonl has 4 of 6 items",
        "scores/1-first/tatqa.jsonl has 5 of 6 items",
    ]
    output = invoke("watch", folder, "--once")[1]
    assert "0.500 (2)" in output and "1.000 (3)" in output


def test_a_run_that_lost_its_recipe(tmp_path: Path) -> None:
    folder = ended(tmp_path / "ended")
    (folder / "recipe.json").unlink()
    seen = watch.look(folder, Reader())
    assert seen.kept == "base" and seen.verdict and "recipe.json is missing" in seen.notes[0]
    for name in ("verdict.json", "done"):
        (folder / name).unlink()
    (folder / ".lock").write_text("{}")
    code, output = invoke("watch", folder)
    assert code == 1 and "recipe.json is missing" in output and "--resume" not in output


def test_bad_lines_of_a_training_are_left_out_alone(tmp_path: Path) -> None:
    folder = going(tmp_path / "going")
    mark(folder)
    log = folder / "stages" / "1-first" / "train.jsonl"
    one, two, three = log.read_text().splitlines()
    log.write_text("\n".join([one, "{", two, '{"step": "x"}', three, '{"step": 4, "los']))  # the last is being written
    seen = watch.look(folder, Reader())
    assert seen.stages[0].accuracy == (0.25, 0.5, 0.75)
    assert seen.notes == ("stages/1-first/train.jsonl: left out of the curves: 2 lines that cannot be read",)
