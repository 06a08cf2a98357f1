"""A run is followed from its folder alone: where it is, how long it takes, that it died, how it ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise import cli, holder, watch
from equipoise.records import InputError
from equipoise.run_folder import Run, hashes, write_lines, write_text
from equipoise.watch_read import QUIET, Reader
from equipoise.watch_show import spark
from equipoise.watch_time import Pace, pace, time_left, training_left, words
from live_runs import AFTER, EVENTS, HOSTILE, ended, going, mark
from study_runs import spread, write_run

HOLD = """
import sys, time
from pathlib import Path
from equipoise.run_folder import Run
with Run(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_where_a_run_is(tmp_path: Path) -> None:
    """2 steps of 4 pairs took 4 s: 2 pairs/s. Left: 1 step of 2 s and 10 s of measuring; then the second stage:
    8 references of 0.25 s, 2 steps of 2 s, 10 s of measuring."""
    folder = going(tmp_path / "going")
    mark(folder)
    seen = watch.look(folder, Reader(), now=1024.0)
    assert (seen.state, seen.elapsed_s, seen.doing) == ("running", 24.0, "first: training, step 3 of 4")
    assert seen.question == "Does a run show where it is?"
    first, second = seen.stages
    assert (first.state, first.step, first.steps, first.pairs_per_s) == ("training", 3, 4, 2.0)
    assert first.accuracy == (0.25, 0.5, 0.75) and second.state == "waiting"
    assert seen.left_s == pytest.approx((2 + 10) + (2 + 4 + 10))
    assert seen.scores == {"tatqa": {"base": {"mean": 0.5, "n": 2, "items": "dev", "lines": 4}}}
    assert seen.notes == () and seen.passed is None


def test_time_left_while_measuring_and_without_knowledge() -> None:
    measuring = [*EVENTS, *AFTER[:2]]
    known = pace(measuring)
    assert known == Pace(step=2.0, reference=0.25, measuring=10.0)
    assert time_left(1031.0, measuring, known, 0, [(8, 2)]) == pytest.approx(6 + (2 + 4 + 10))
    assert time_left(1024.0, EVENTS, pace(EVENTS), 1, []) is None  # no step was timed yet
    reused = [EVENTS[0], EVENTS[1], {"time": 1001.1, "event": "base scores reused", "repeat": 0}, *EVENTS[2:]]
    assert pace(reused).measuring is None  # what came from the store says nothing about measuring
    failed = [*EVENTS[:2], {"time": 1001.5, "event": "failed", "error": "?"}, {"time": 1100.0, "event": "begin"}]
    assert pace(failed).measuring is None  # nor does what failed, and what is to come is not known yet
    assert time_left(1101.0, failed, Pace(2.0, 0.25, 10.0), 0, [(8, 2)]) is None


def test_time_left_says_what_is_known(tmp_path: Path) -> None:
    """The base came from the store, so measuring was never timed; 1 step of 2 s is left of the training in hand."""
    folder = going(tmp_path / "going")
    mark(folder)
    reused = {"time": 1001.1, "event": "base scores reused", "repeat": 0}
    write_lines(folder / "events.jsonl", [*EVENTS[:2], reused, *EVENTS[2:]])
    seen = watch.look(folder, Reader(), now=1024.0)
    assert (seen.left_s, seen.training_left_s) == (None, 2.0)
    assert seen.left == "training: about 2 s left, then measuring, and 1 more stage"
    assert seen.left in invoke("watch", folder, "--once")[1]
    references = EVENTS[:3]  # 16 references of 0.25 s, one second of them gone, then 3 steps of 2 s
    assert training_left(1012.0, references, Pace(2.0, 0.25, None), 3) == pytest.approx(3 + 6)
    assert words(90.0, 30.0, 0) == "about 2 min left" and words(None, None, 1) == "time left not known yet"
    # A stage that was measured in this run says how long measuring takes.
    measured = [*EVENTS[:2], reused, *EVENTS[2:], *AFTER[:3], {**EVENTS[4], "time": 1040.0, "stage": "second"}]
    assert pace(measured).measuring == 10.0
    assert time_left(1040.0, measured, pace(measured), 3, []) == pytest.approx(3 * 2 + 10)


def test_the_end_of_a_run_and_its_exit_code(tmp_path: Path) -> None:
    seen = watch.look(ended(tmp_path / "ended"), Reader())
    assert (seen.state, seen.kept, seen.passed, seen.elapsed_s) == ("finished", "base", False, 38.0)
    assert [stage.state for stage in seen.stages] == ["refused", "skipped"]
    code, output = invoke("watch", tmp_path / "ended")
    assert code == 1 and "worse" in output and "hold tatqa: a loss is shown" in output
    code, output = invoke("watch", tmp_path / "ended", "--once")
    assert code == 0 and "kept: base" in output and "\x1b" not in output
    passed = write_run(tmp_path / "passed", {"tatqa": spread(0.5), "mt_bench": spread(0.5)})
    assert invoke("watch", passed)[0] == 0


def test_json_is_one_object(tmp_path: Path) -> None:
    folder = going(tmp_path / "going")
    mark(folder)
    code, output = invoke("watch", folder, "--json")
    found = json.loads(output)
    assert code == 0 and found["state"] == "running"
    assert found["stages"][0]["margin"] == pytest.approx([0.1, 0.2, 0.3])


def test_a_run_that_died_is_told_from_one_that_lives(tmp_path: Path) -> None:
    folder = going(tmp_path / "going")
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        assert watch.look(folder, Reader()).state == "running"
        child.send_signal(signal.SIGKILL)  # a zombie until it is waited for: dead all the same
        for _ in range(100):
            if holder.lives(folder / ".lock") is False:
                break
            time.sleep(0.05)
        assert watch.look(folder, Reader()).state == "stopped"
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    code, output = invoke("watch", folder)
    assert code == 1 and f"equipoise run --resume {folder}" in " ".join(output.split())
    assert watch.look(folder, Reader()).stages[0].state == "interrupted"


def test_a_lock_that_was_given_back_or_comes_from_elsewhere(tmp_path: Path) -> None:
    folder = going(tmp_path / "going")
    with Run(folder).lock():
        assert holder.lives(folder / ".lock") is True
    assert holder.lives(folder / ".lock") is False  # this process lives, and has ended the run
    mark(folder, started=1)
    assert holder.lives(folder / ".lock") is False  # the number belongs to another process now
    for unknown in ('{"pid": 1, "started": 1, "place": "another machine"}', "", "[1]", '{"pid": "x"}'):
        (folder / ".lock").write_text(unknown)
        assert holder.lives(folder / ".lock") is None
    now = max(path.stat().st_mtime for path in (folder / "events.jsonl", *folder.glob("s*/*")))
    assert watch.look(folder, Reader(), now=now + QUIET - 5).state == "running"
    silent = watch.look(folder, Reader(), now=now + QUIET + 5)
    assert silent.state == "silent" and "10 minutes" in silent.said


def test_watching_leaves_no_trace(tmp_path: Path) -> None:
    folder = going(tmp_path / "going")
    mark(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}, hashes(folder)
    watch.look(folder, Reader())
    assert invoke("watch", folder, "--once")[0] == 0
    assert before == ({path: path.stat().st_mtime_ns for path in folder.rglob("*")}, hashes(folder))
    with Run(folder).lock():  # nobody else has it
        pass


def test_damaged_and_hostile_files_are_notes(tmp_path: Path) -> None:
    folder = ended(tmp_path / "ended", question=HOSTILE)
    for name in ("verdict.json", "stages/1-first/gate.json", "scores/base/tatqa.jsonl"):
        (folder / name).write_text('{"outcome": [')
    (folder / "stages/1-first/train.jsonl").write_text('{"step": 1}\n')
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"time": "yesterday", "event": "gate"}\n["odd"]\n{"time": 10')
    seen = watch.look(folder, Reader())
    assert [note.partition(" ")[0] for note in seen.notes] == [
        "verdict.json",
        "stages/1-first/gate.json",
        "stages/1-first/train.jsonl:",
    ]
    assert seen.events[-1]["event"] == "end" and seen.scores["tatqa"]["base"]["mean"] is None
    code, output = invoke("watch", folder, "--once")
    assert code == 0 and "\x1b" not in output and "\u202e" not in output and "⟨U+202E⟩" in output
    (folder / "recipe.json").write_text("{")
    assert watch.look(folder, Reader()).stages == ()


def test_a_folder_that_is_no_run_and_one_that_begins(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        code, output = invoke("watch", place)
        assert code == 2 and output.count("\n") == 1 and "not a run folder" in output
    with pytest.raises(InputError):
        watch.look(tmp_path, Reader())
    mark(tmp_path)
    begins = watch.look(tmp_path, Reader())
    assert (begins.state, begins.doing) == ("running", "preparing the pairs of every stage")


def test_a_reader_sees_what_changed(tmp_path: Path) -> None:
    folder, reader = going(tmp_path / "going"), Reader()
    assert watch.look(folder, reader).stages[0].step == 3
    with (folder / "stages/1-first/train.jsonl").open("a") as log:
        log.write(json.dumps({"step": 4, "loss": 0.3, "margin": 0.4, "accuracy": 1.0, "pairs": 4.0}) + "\n")
    assert watch.look(folder, reader).stages[0].loss[-1] == 0.3


def test_following_in_a_pipe_ends_with_the_run(tmp_path: Path) -> None:
    """Events are told as they come; the process leaves by itself when the run has ended, and 130 on Ctrl-C."""
    folder = going(tmp_path / "going")
    mark(folder)
    command = [sys.executable, "-m", "equipoise", "watch", str(folder)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        while "training" not in child.stdout.readline():
            assert child.poll() is None
    children[1].send_signal(signal.SIGINT)
    _, said = children[1].communicate(timeout=20)
    assert children[1].returncode == 130 and said == ""
    ended(folder)
    output, said = children[0].communicate(timeout=20)
    assert children[0].returncode == 1 and said == ""
    assert "kept: base" in output and "gate" in output


def test_a_study_says_why_a_run_failed(tmp_path: Path) -> None:
    folder = going(tmp_path / "going")
    mark(folder, pid=2**22 + 1)
    write_text(tmp_path / "study.json", json.dumps({"rows": [{"name": "going", "reason": "no memory"}]}))
    assert watch.look(folder, Reader()).notes == ("study.json says why it ended: no memory",)


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [([], 5, ""), ([1.0], 5, "▁"), ([2.0, 2.0], 5, "▁▁"), ([0.0, 7.0], 5, "▁█"), ([0, 0, 4, 4, 7, 7], 3, "▁▅█")],
)
def test_spark(values: list[float], width: int, line: str) -> None:
    assert spark(values, width) == line
