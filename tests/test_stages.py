"""Stages and their remedies in whole runs on tiny models: retry, shrink, replay, early ends; killed and resumed."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer

import equipoise
from equipoise.data.apart import set_apart
from equipoise.data.ledger import Ledger, differences
from equipoise.data.replay import asked, draw, is_replayed
from equipoise.data.tables import read_pairs
from equipoise.dpo.logprobs import pair_logprobs
from equipoise.model import adapters
from equipoise.model.load import load_policy
from equipoise.recipe import Lora, ModelSpec, Replay, Stage
from equipoise.records import InputError, Message, Pair
from equipoise.remedies import in_attempt, values_of
from equipoise.run_folder import Run, read_json, read_scores
from equipoise.shrink import fold
from equipoise.stages import Outcome
from equipoise.verify import verify
from experiments import contents, make_experiment
from test_train import encoded

RETRY = "stages.first.gate={improve: {mt_bench: 1000}, on_fail: retry, retry: {max: 1, scale: {learning_rate: 0.5}}}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment on tiny models, and one without its second stage; all runs of this file share its store."""
    folder = tmp_path_factory.mktemp("stages")
    text = make_experiment(folder).read_text()
    start, end = text.index("  - name: second"), text.index("evaluation:")
    (folder / "one.yaml").write_text(text[:start] + text[end:])
    return folder


@pytest.fixture
def lab(place: Path, own_store: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Lab:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(place / "cache"))
    return Lab(place, request.node.name)


@dataclass
class Lab:
    """Runs the experiment under a name of the test's own."""

    folder: Path
    name: str

    def run(self, *overrides: str, stages: int = 1, name: str = "", **options: Any) -> Outcome:
        recipe = self.folder / ("one.yaml" if stages == 1 else "recipe.yaml")
        loaded = equipoise.load_recipe(recipe, overrides)
        runs = self.folder / "runs" / self.name
        return equipoise.run(loaded, out=runs, name=name or "run", text=recipe.read_text(), **options)

    def figures(self, *overrides: str, stages: int = 1, steps: int = 9) -> dict[float, dict[str, float]]:
        """Lengths of answers against the base's at each of some scales of the last stage's adapter, by domain.

        What a model with random weights writes is chance, so tests choose their limits by it.
        """
        last = ("first", "second")[stages - 1]
        limits = "{mt_bench.length: 0.0, finance_instruct.length: 0.0}"
        gate = f"stages.{last}.gate={{health: {limits}, shrink: {{steps: {steps}}}}}"
        (*_, decided) = self.run(*overrides, gate, stages=stages, name="figures").verdict["gates"]
        return {one["scale"]: {row["key"]: row["figure"] for row in one["rows"]} for one in decided["tries"]}

    def limit(self, *overrides: str, stages: int = 1, steps: int = 9) -> tuple[str, float, float]:
        """A rule of length and a limit that the whole adapter breaks, and the largest scale that holds it."""
        figures = self.figures(*overrides, stages=stages, steps=steps)
        scales = sorted(figures, reverse=True)
        for key in figures[1.0]:
            for place, scale in enumerate(scales[1:], 1):
                above = min(figures[other][key] for other in scales[:place])
                if figures[scale][key] < above:
                    return key, (figures[scale][key] + above) / 2, scale
        raise AssertionError(f"no smaller adapter writes shorter answers: {figures}")


def a_pair(number: int, source: str = "a", group: str = "") -> Pair:
    return Pair((Message("user", f"{source} {number}?"),), "yes", "no", "d", source, group or f"{source}{number}")


# --- what an attempt changes ---


def test_values_of_attempts_by_hand() -> None:
    """The third attempt: 1e-4 * 0.5^2, 0.1 * 1.5^2, 2 * 0.5^2 epochs, a share of 0.1 * 2^2."""
    retry = {"max": 2, "scale": {"learning_rate": 0.5, "beta": 1.5, "epochs": 0.5, "replay": 2.0}}
    stage = Stage.model_validate(
        {
            "name": "s",
            "mix": {"a": 1},
            "replay": {"share": 0.1},
            "optim": {"learning_rate": 1e-4, "epochs": 2},
            "gate": {"hold": {"d": 1}, "on_fail": "retry", "retry": retry},
        }
    )
    assert in_attempt(stage, 1) == stage
    expected = {"learning_rate": 2.5e-5, "beta": 0.225, "epochs": 0.5, "replay": 0.4}
    assert values_of(in_attempt(stage, 3)) == pytest.approx(expected)
    line = stage.dpo.model_copy(update={"beta": {"kind": "linear", "start": 0.1, "end": 0.4}})
    line = type(stage.dpo).model_validate(line.model_dump())
    scaled = in_attempt(stage.model_copy(update={"dpo": line}), 2).dpo.model_dump()["beta"]
    assert scaled == {"kind": "linear", "start": pytest.approx(0.15), "end": pytest.approx(0.6)}
    with pytest.raises(ValueError, match=r"replay a share of 1\.2"):
        Stage.model_validate({**stage.model_dump(exclude={"mix"}), "mix": {"a": 1}, "replay": {"share": 0.3}})


def test_a_failed_stage_is_trained_again_and_rolled_back_after_its_budget(lab: Lab) -> None:
    outcome = lab.run(RETRY, stages=2)
    folder = outcome.run.folder / "stages/1-first"
    gate = read_json(folder / "gate.json")
    assert [one["action"] for one in (*gate["attempts"], gate)] == ["retry", "rollback"]
    assert [one["values"]["learning_rate"] for one in (*gate["attempts"], gate)] == [1e-2, 5e-3]
    assert (gate["attempt"], outcome.verdict["kept_stage"], outcome.passed) == (2, "2-second", False)
    # Both adapters are there, from the same start and the same pairs, and they differ as their learning rates do.
    first, last = (path / "adapter/adapter_model.safetensors" for path in (folder / "attempts/1", folder))
    assert first.read_bytes() != last.read_bytes()
    rates = [
        max(json.loads(line)["learning_rate"] for line in (path / "train.jsonl").read_text().splitlines())
        for path in (folder / "attempts/1", folder)
    ]
    assert rates == [1e-2, 5e-3]
    assert (folder / "attempts/1/pairs.parquet").read_bytes() == (folder / "pairs.parquet").read_bytes()
    assert set(read_scores(folder / "attempts/1/scores")) == {"mt_bench", "finance_instruct"}
    assert read_json(outcome.run.folder / "stages/2-second/start.json")["stack"] == []
    assert verify(outcome.run) == []


def test_an_attempt_that_passes_is_kept(lab: Lab) -> None:
    """At a rate of nearly 0 every answer is the base's, so its length as well, which the first attempt passed by."""
    figures = lab.figures()[1.0]
    key = max(figures, key=lambda key: figures[key])
    assert figures[key] > 1.0, "the first attempt should write longer answers than the base in some domain"
    retry = "on_fail: retry, retry: {max: 3, scale: {learning_rate: 1e-12}}"
    outcome = lab.run(f"stages.first.gate={{health: {{{key}: 1.0}}, {retry}}}")
    gate = outcome.verdict["gates"][0]
    assert (gate["outcome"], gate["action"], gate["attempt"], len(gate["attempts"])) == ("pass", "keep", 2, 1)
    assert gate["rows"][0]["figure"] == 1.0 and outcome.verdict["kept_stage"] == "1-first"
    assert verify(outcome.run) == []


# --- shrink ---


def test_a_folded_scale_is_peft_s_scaling(lab: Lab) -> None:
    """Log-probabilities of an adapter whose alpha holds 0.3 are those of the whole one with its layers at 0.3."""
    outcome = lab.run()
    folder = outcome.run.folder / "stages/1-first"
    loaded = load_policy(ModelSpec(id=str(lab.folder / "policy")))
    pairs = encoded(loaded, 4)

    def logps(scale: float | None = None) -> torch.Tensor:
        model = adapters.attach(loaded, [folder / "adapter"])
        if scale is not None:
            for layer in model.modules():
                if isinstance(layer, LoraLayer):
                    layer.scaling = {name: value * scale for name, value in layer.scaling.items()}
        with torch.no_grad():
            found = pair_logprobs(model, pairs).chosen
        adapters.detach(model)
        return found

    whole, small, none = logps(), logps(0.3), logps(0.0)
    fold(folder, Lora(rank=4), 0.3)
    assert torch.allclose(logps(), small, atol=1e-5)
    assert float((small - whole).abs().max()) > 0.1 and float((small - none).abs().max()) > 0.1
    assert read_json(folder / "adapter/adapter_config.json")["lora_alpha"] == pytest.approx(4.8)


def test_the_largest_scale_that_passes_is_kept(lab: Lab) -> None:
    """The whole adapter makes answers longer than allowed; a smaller one does not. It is the adapter from then on."""
    key, limit, scale = lab.limit()
    outcome = lab.run(f"stages.first.gate={{health: {{{key}: {limit}}}, shrink: {{steps: 9}}}}")
    folder = outcome.run.folder / "stages/1-first"
    gates = outcome.verdict["gates"][0]
    assert (gates["outcome"], gates["action"], gates["scale"]) == ("pass", "keep", scale)
    tried = [(one["scale"], one["outcome"]) for one in gates["tries"]]
    scales = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert tried == [*((one, "fail") for one in scales[: scales.index(scale)]), (scale, "pass")]
    assert gates["rows"] == gates["tries"][-1]["rows"]  # decided on the very scores of the search
    alpha = read_json(folder / "adapter/adapter_config.json")["lora_alpha"]
    assert alpha == pytest.approx(16.0 * scale)
    whole, kept = read_scores(folder / "shrink/1/scores"), outcome.run.scores("1-first")
    assert [score.split for score in kept["mt_bench"]] == [score.split for score in whole["mt_bench"]]
    assert {score.split for score in kept["mt_bench"]} == {"dev", "test"}
    assert any(one.answers != other.answers for one, other in zip(kept["mt_bench"], whole["mt_bench"], strict=True))
    assert {s.split for s in read_scores(folder / f"shrink/{scale:g}/scores")["mt_bench"]} == {"dev"}
    assert not list((folder / "shrink").rglob("*.safetensors"))
    assert verify(outcome.run) == []
    # An edited try is found, although the decision is untouched.
    path = folder / "shrink/1/scores/mt_bench.jsonl"
    path.write_text(path.read_text().replace('"words": ', '"words": 9', 1))
    assert any("stages/1-first/gate.json" in problem and "tries" in problem for problem in verify(outcome.run))


def test_where_no_scale_passes_the_gate_does_what_it_says(lab: Lab) -> None:
    outcome = lab.run("stages.first.gate={improve: {mt_bench: 1000}, on_fail: stop, shrink: true}")
    gate = outcome.verdict["gates"][0]
    assert [one["scale"] for one in gate["tries"]] == [1.0, 0.75, 0.5, 0.25, 0.1]
    assert all(one["rows"][0]["difference"] is not None for one in gate["tries"])
    assert (gate["outcome"], gate["action"], gate["scale"], len(outcome.verdict["gates"])) == ("fail", "stop", 1.0, 1)
    config = read_json(outcome.run.folder / "stages/1-first/adapter/adapter_config.json")
    assert config["lora_alpha"] == 16.0
    assert verify(outcome.run) == []


# --- percent, ranks ---


def test_thresholds_in_percent_of_the_base(lab: Lab) -> None:
    outcome = lab.run("stages.first.gate={hold: {mt_bench.ten: 1000%}}", "stages.first.lora.rank=8", stages=2)
    (row,) = outcome.verdict["gates"][0]["rows"]
    base = [score.metrics["ten"] for score in outcome.run.scores("base")["mt_bench"] if score.split == "dev"]
    assert (row["percent"], row["base"]) == (1000.0, pytest.approx(sum(base) / len(base)))
    assert row["threshold"] == pytest.approx(10 * row["base"])
    ranks = [
        read_json(outcome.run.folder / f"stages/{k}/adapter/adapter_config.json")["r"] for k in ("1-first", "2-second")
    ]
    assert ranks == [8, 2] and read_json(outcome.run.folder / "stages/2-second/start.json")["stack"] == ["1-first"]
    assert verify(outcome.run) == []


def test_a_percentage_of_a_negative_mean_stops_before_training(lab: Lab) -> None:
    outcome = lab.run("stages.first.gate={}", name="plain")
    values = [score.value or 0.0 for score in outcome.run.scores("base")["mt_bench"] if score.split == "dev"]
    task = "mt_bench" if sum(values) <= 0 else "finance_instruct"
    with pytest.raises(InputError, match=f"gate.hold.{task}: 2% of the base model's mean"):
        lab.run(f"stages.first.gate={{hold: {{{task}: 2%}}}}", name="percent")
    assert not (outcome.run.folder.parent / "percent/stages").exists()


# --- replay ---


def test_counts_of_replay_by_hand() -> None:
    """A fifth of all: 80 own pairs get 20, of 30 and 90 earlier ones 5 and 15. A quarter beside 10 is 3.33, so 3."""
    assert asked(80, 0.2, {"a": 30, "b": 90}) == {"a replayed": 5, "b replayed": 15}
    assert asked(10, 0.25, {"a": 1, "b": 1, "c": 1}) == {"a replayed": 1, "b replayed": 1, "c replayed": 1}
    assert asked(10, 0.2, {"a": 1, "b": 1}) == {"a replayed": 2, "b replayed": 1}  # 2.5, and a half goes up
    assert asked(10, 0.5, {}) == {}


def test_replay_draws_what_is_not_there_anyway() -> None:
    """10 own pairs, 4 of them among 12 earlier ones: the 10 that a share of a half asks for are 8."""
    earlier = [a_pair(number) for number in range(12)]
    own = [*earlier[:4], *(a_pair(number, "b") for number in range(6))]

    def drawn(when_short: Any = "shrink", seed: int = 0, planned: bool = True, usable: Any = lambda pair: True) -> Any:
        spec = Replay(share=0.5, when_short=when_short)
        return draw(own, earlier, spec, seed=seed, stage="s", usable=usable, planned=planned)

    found = drawn()
    assert {pair.id for pair in found.pairs} == {pair.id for pair in earlier[4:]}
    assert {pair.source for pair in found.pairs} == {"a replayed"}
    (line,) = found.lines
    assert (line.source, line.asked, line.available, line.drawn, line.repeated) == ("a replayed", 10, 8, 8, 0)
    assert drawn("repeat").lines[0].repeated == 2 and len(drawn("repeat").pairs) == 10
    with pytest.raises(InputError, match="replay: 10 pairs of a asked, 8 of earlier stages are there"):
        drawn("fail")
    assert len(drawn("fail", planned=False).pairs) == 8  # a stage was not kept: too late to stop
    assert found == drawn() and [pair.id for pair in found.pairs] != [pair.id for pair in drawn(seed=1).pairs]
    assert len(drawn(usable=lambda pair: pair != earlier[5]).pairs) == 7


def test_replayed_pairs_are_trained_on_and_counted(lab: Lab) -> None:
    """10 own pairs, and a fifth of all replayed: 2.5, so 3 of the 12 of stage one, none of which the mix draws."""
    outcome = lab.run("stages.second.replay={share: 0.2}", stages=2)
    folder = outcome.run.folder
    pairs = read_pairs(folder / "stages/2-second/pairs.parquet")
    assert Counter(pair.source for pair in pairs) == {"general": 2, "finance": 8, "general replayed": 3}
    replayed = {pair.id for pair in pairs if is_replayed(pair.source)}
    assert replayed <= {pair.id for pair in read_pairs(folder / "stages/1-first/pairs.parquet")}
    assert not replayed & {pair.id for pair in pairs if not is_replayed(pair.source)}
    ledger = Ledger.from_record(read_json(folder / "data/ledger.json"))
    line = ledger.stages["second"].sources["general replayed"]
    assert (line.asked, line.drawn, line.seen) == (3, 3, 3)
    steps = [json.loads(text) for text in (folder / "stages/2-second/train.jsonl").read_text().splitlines()]
    assert sum(step["sources"].get("general replayed", {}).get("pairs", 0) for step in steps) == 3
    assert differences(ledger) == [] and verify(outcome.run) == []
    path = folder / "data/ledger.json"
    record = read_json(path)
    record["stages"]["second"]["sources"]["general replayed"]["asked"] = 4
    path.write_text(json.dumps(record))
    assert any("general replayed are (3, 3, 3, 0), not (4, 3, 3, 0)" in problem for problem in verify(outcome.run))


def test_what_a_refused_stage_learned_is_not_replayed(lab: Lab) -> None:
    outcome = lab.run("stages.first.gate={improve: {mt_bench: 1000}}", "stages.second.replay={share: 0.2}", stages=2)
    pairs = read_pairs(outcome.run.folder / "stages/2-second/pairs.parquet")
    assert Counter(pair.source for pair in pairs) == {"general": 2, "finance": 8}
    assert verify(outcome.run) == []


def test_a_retry_may_replay_more(lab: Lab) -> None:
    retry = "{improve: {mt_bench: 1000}, on_fail: retry, retry: {max: 1, scale: {replay: 2}}}"
    outcome = lab.run("stages.second.replay={share: 0.1}", f"stages.second.gate={retry}", stages=2)
    folder = outcome.run.folder / "stages/2-second"
    counts = [
        sum(is_replayed(pair.source) for pair in read_pairs(path / "pairs.parquet"))
        for path in (folder / "attempts/1", folder)
    ]
    assert counts == [1, 3]  # 10 * 0.1 / 0.9 = 1.1, 10 * 0.2 / 0.8 = 2.5
    assert verify(outcome.run) == []


def test_replay_that_cannot_be_stops_before_anything_runs(lab: Lab) -> None:
    for override, said in [
        ("stages.first.replay={share: 0.2}", "the first stage has no earlier one"),
        ("stages.second.replay={share: 0.9}", r"stage second: replay: 90 pairs of general asked, 1\d of earlier"),
    ]:
        with pytest.raises(InputError, match=said):
            lab.run(override, stages=2)
        assert not (lab.folder / "runs" / lab.name / "run/scores").exists()


# --- automatic end ---


def test_set_apart_groups_by_hand() -> None:
    """Source a: 5 groups of 2, of which a fifth is 1; b: 2 groups, at least 1; c: a single group stays."""
    pairs = [a_pair(number, "a", f"g{number // 2}") for number in range(10)]
    pairs += [a_pair(number, "b") for number in range(2)] + [a_pair(0, "c"), a_pair(1, "c", "c0")]
    places = set_apart(pairs, 0.2, seed=0, stage="s")
    assert Counter(pairs[place].source for place in places) == {"a": 2, "b": 1}
    inside = {pairs[place].group for place in places}
    assert not inside & {pair.group for place, pair in enumerate(pairs) if place not in places}
    assert places == set_apart(pairs, 0.2, seed=0, stage="s")
    assert set_apart(pairs[-2:], 0.5, seed=0, stage="s") == set()


def test_a_stage_that_ends_by_itself_says_why(lab: Lab) -> None:
    """A rate of nearly 0 gets nothing better: of 9 trained pairs the end comes at the second look."""
    optim = "{learning_rate: 1e-30, epochs: 4, batch_size: 3, stop: {every: 1, patience: 1, share: 0.25}}"
    outcome = lab.run(f"stages.first.optim={optim}")
    folder = outcome.run.folder
    gate = outcome.verdict["gates"][0]
    assert "no better than" in gate["stopped"]
    steps = [json.loads(text) for text in (folder / "stages/1-first/train.jsonl").read_text().splitlines()]
    assert len(steps) == 2 and all("dev_loss" in step for step in steps)
    apart, trained = (read_pairs(folder / f"stages/1-first/{name}.parquet") for name in ("set_apart", "pairs"))
    assert (len(apart), len(trained)) == (3, 9)
    assert not {pair.group for pair in apart} & {pair.group for pair in trained}
    line = Ledger.from_record(read_json(folder / "data/ledger.json")).stages["first"].sources["general"]
    assert (line.asked, line.drawn, line.set_apart, line.seen) == (12, 12, 3, 6)
    assert len(read_json(folder / "stages/1-first/trained.json")["unseen"]) == 3
    assert verify(outcome.run) == []


# --- killed ---

EVERYTHING = (
    "stages.first.gate={improve: {mt_bench: 1000}, shrink: {steps: 1}, on_fail: retry, "
    "retry: {max: 1, scale: {learning_rate: 0.5}}}",
    "stages.first.optim.stop={metric: dev_accuracy, every: 2, patience: 1, share: 0.2}",
    "stages.first.optim.epochs=4",
    "stages.second.dpo.beta={kind: adaptive, beta: 0.1}",
    "stages.second.optim.checkpoint_every=1",
)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_killed_and_resumed_to_the_same_bytes(lab: Lab) -> None:
    """Each process dies after the first file or folder that it moves, or after some of the files that it writes."""
    key, limit, scale = lab.limit(*EVERYTHING, stages=2, steps=4)
    asked = (*EVERYTHING, f"stages.second.gate={{health: {{{key}: {limit}}}, shrink: {{steps: 4}}}}")
    whole = lab.run(*asked, stages=2, name="whole")
    assert verify(whole.run) == []
    first, second = whole.verdict["gates"]
    assert [len(gate["tries"]) for gate in (*first["attempts"], first)] == [2, 2] and first["stopped"]
    assert second["scale"] == scale < 1
    random, left = Random(1), [0]

    def dying(real: Any) -> Any:
        def then_die(*arguments: Any) -> Any:
            done = real(*arguments)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return done

        return then_die

    for owner, name, legs in ((Path, "rename", (1, 2)), (os, "fsync", (20, 40))):
        kills = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, dying(getattr(owner, name)))
            while True:
                left[0] = random.randint(*legs)
                try:
                    killed = lab.run(*asked, stages=2, name=name, resume=kills > 0)
                    break
                except Killed:
                    kills += 1
        assert kills > 4
        assert contents(killed.run.folder) == contents(whole.run.folder)
        assert verify(Run.open(killed.run.folder)) == []
