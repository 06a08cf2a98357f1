"""The known command lines: every flag and every printed command is accepted, translated, and runs."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from equipoise.beginning import require_same_recipe
from equipoise.compat.explain import meanings
from equipoise.compat.flags import FLAGS, parser
from equipoise.compat.program import main
from equipoise.compat.translate import output_dir, recipe_of, run_name, settings_of
from equipoise.recipe import Lora, Recipe
from equipoise.recipe_file import changed_fields, load_recipe, parse_recipe, resolved
from equipoise.recipe_text import recipe_text
from equipoise.records import InputError
from equipoise.run_folder import Run, read_json, write_json
from equipoise.verify import verify

ROOT = Path(__file__).parents[1]
DEFAULTS: dict[str, Any] = {
    "model": "Qwen/Qwen3-1.7B", "output_dir": None, "beta": 0.03, "learning_rate": 5e-6, "batch": 1, "grad_acc": 64,
    "epochs": 1, "seed": 42, "max_length": 2560, "max_prompt_length": 1536, "lora_r": 8, "lora_alpha": 16,
    "lora_dropout": 0.05, "target_modules": "q_proj,v_proj", "reddit_min_post_chars": 120,
    "reddit_min_comment_chars": 40, "reddit_max_post_chars": 2000, "reddit_score_margin": 0.10,
    "reddit_length_tol": 0.6, "reddit_max_pairs_per_post": 1, "reddit_sample_rate": 0.3, "hybrid_ratio": None,
    "finance_instruct_pairs": None, "general_pairs": None, "mtbench_pairs": 0, "reddit_ratio": 0.4,
    "finance_ratio": 0.3, "general_ratio": None, "general_dataset": "Intel/orca_dpo_pairs",
    "instruct_complexity_filter": False, "min_response_length": 0, "tatqa_split": "validation",
    "tatqa_table_rows": 20, "tatqa_table_cols": 8, "tatqa_para_chars": 1200, "tatqa_only_rel_paras": True,
    "eval_limit": 1000, "eval_max_new_tokens": 64, "eval_temperature": 0.2, "eval_top_p": 0.9, "eval_baseline": True,
    "do_eval": True, "do_mtbench": True, "do_instruct": True, "do_reddit": True, "mtbench_limit": 50,
    "mtbench_max_tokens": 256, "mtbench_file": "mt_bench_en.json", "instruct_limit": 25, "instruct_max_tokens": 512,
    "reddit_limit": 100, "reddit_max_tokens": 256, "exp_log": "dpo_experiments.jsonl", "exp_tag": "", "no_4bit": False,
    "use_chat_template": False, "no_train": False, "limit_pairs": 0, "load_adapter": "", "adapter_trainable": False,
    "resume_from_checkpoint": "", "use_hybrid": False, "use_3way_hybrid": False, "progressive": False, "stage": 1,
    **{f"stage{n}_{name}": None for n in (1, 2, 3) for name in ("beta", "epochs", "lora_r", "lora_alpha", "lr")},
    **dict.fromkeys(("lora_r_finance", "lora_r_general", "lr_reddit", "lr_finance", "lr_general")),
}  # fmt: skip
"""Every flag of the original program; None: the default depends on the kind of experiment."""
PRODUCTION = {
    "production-mt-bench": "--use_hybrid --hybrid_ratio 0.6 --beta 0.015 --learning_rate 3e-6 "
    "--finance_instruct_pairs 1500 --reddit_sample_rate 0.3 --exp_tag production_mt_bench_optimized",
    "production-balanced": "--use_hybrid --hybrid_ratio 0.5 --beta 0.0175 --learning_rate 4e-6 "
    "--finance_instruct_pairs 1800 --reddit_sample_rate 0.2 --exp_tag production_balanced_optimized",
    "production-finance": "--use_hybrid --hybrid_ratio 0.7 --beta 0.02 --learning_rate 5e-6 "
    "--finance_instruct_pairs 2000 --reddit_sample_rate 0.35 --exp_tag production_finance_optimized",
}


def translated(program: str, line: str) -> Recipe:
    given = vars(parser(program).parse_args(shlex.split(line)))
    settings = settings_of(program, {name: value for name, value in given.items() if name in FLAGS})
    return parse_recipe(recipe_text(recipe_of(settings), "What does it do?"))


def test_every_flag_has_its_default_and_is_parsed() -> None:
    assert {name: flag.default for name, flag in FLAGS.items() if name != "lora_r_reddit"} == DEFAULTS
    for name, flag in FLAGS.items():
        text = {bool: "true", int: "3", float: "0.5", str: "text"}[type(flag.read("1"))]
        for program in ("dpo_train_mt", "dpo_train_mt_v2", "run_3way_hybrid"):
            assert getattr(parser(program).parse_args([f"--{name}", text]), name) == flag.read(text)
        if type(flag.read("1")) is bool:
            assert getattr(parser("dpo_train_mt").parse_args([f"--{name}"]), name) is True
            assert getattr(parser("dpo_train_mt").parse_args([f"--{name}", "false"]), name) is False


def printed_commands(text: str) -> list[tuple[str, str]]:
    """(program, flags) of every command line in a page; flags that stand alone belong to dpo_train_mt."""
    lines = [re.sub(r"\s#.*$|^```.*$", "", line).strip() for line in text.splitlines()]
    joined = re.sub(r" *\\\n", " ", "\n".join(lines)).splitlines()
    found = [re.fullmatch(r"(?:python (\w+)\.py ?)?((?:--[a-z].*)?)", line) for line in joined]
    return [(match[1] or "dpo_train_mt", match[2].strip(" \\")) for match in found if match and (match[1] or match[2])]


def test_every_printed_command_is_accepted() -> None:
    folder = Path(os.environ.get("EQUIPOISE_REFERENCE", ROOT / ".." / "shared" / "reference"))
    notes = folder / "original-notes.md"
    if not notes.is_file():
        pytest.skip(f"{notes} is absent; set EQUIPOISE_REFERENCE to the folder with the original notes")
    commands = printed_commands(notes.read_text())
    assert len(commands) >= 20
    assert {program for program, _ in commands} == {"dpo_train_mt", "dpo_train_mt_v2", "run_3way_hybrid"}
    for program, line in commands:
        assert translated(program, line).stages, line


@pytest.mark.parametrize("name", PRODUCTION)
def test_production_commands_are_the_production_recipes(name: str) -> None:
    found, recipe = translated("dpo_train_mt", PRODUCTION[name]), load_recipe(ROOT / f"recipes/original/{name}.yaml")
    one, other = found.stages[0], recipe.stages[0]
    assert (one.mix.pairs, one.mix.shares) == (other.mix.pairs, other.mix.shares)
    assert (one.dpo, one.optim, one.lora) == (other.dpo, other.optim, other.lora)
    assert (found.model, found.reward, found.seed) == (recipe.model, recipe.reward, recipe.seed)
    assert found.sources["reddit"] == recipe.sources["reddit"]


@pytest.mark.parametrize(
    ("program", "line", "name"),
    [
        ("dpo_train_mt", "--beta 0.02", "1-pure-reddit"),
        ("dpo_train_mt", "--use_hybrid --beta 0.02", "3-hybrid-2way"),
        ("run_3way_hybrid", "", "4-hybrid-3way"),
        ("dpo_train_mt_v2", "--progressive --stage 2", "7-progressive-2stage"),
    ],
)
def test_experiments_by_command_are_those_of_the_recipes(program: str, line: str, name: str) -> None:
    found, recipe = translated(program, line), load_recipe(ROOT / f"recipes/original/{name}-as-designed.yaml")
    for one, other in zip(found.stages, recipe.stages, strict=True):
        assert (one.mix.pairs, one.mix.shares) == (
            sum((other.mix.counts or {}).values()) or other.mix.pairs,
            other.mix.shares or {next(iter(other.mix.counts or {})): 1.0},
        )
        assert (one.dpo, one.optim, one.lora) == (other.dpo, other.optim, other.lora)
    assert found.model == recipe.model


def test_what_else_can_be_asked_for() -> None:
    three = translated("dpo_train_mt", "--use_hybrid --general_pairs 500 --general_ratio 0.05").stages[0].mix
    assert (three.pairs, three.shares) == (15809 + 2000 + 500, {"reddit": 0.665, "finance": 0.285, "general": 0.05})
    bench = translated("dpo_train_mt", "--use_hybrid --mtbench_pairs 500 --limit_pairs 1000")
    assert (bench.stages[0].mix.pairs, bench.sources["mt_bench"].kind) == (1000, "mt_bench_style")
    assert bench.stages[0].mix.shares is not None
    assert bench.stages[0].mix.shares["mt_bench"] == pytest.approx(500 / 18309)
    apart = translated("dpo_train_mt", "--use_3way_hybrid --lora_r_finance 16 --lora_r_general 4 --lr_general 1e-6")
    (stage,) = apart.stages
    assert isinstance(stage.lora, dict) and stage.optim.learning_rate == 5e-6
    assert {name: (one.rank, one.alpha, one.learning_rate) for name, one in stage.lora.items()} == {
        "finance": (16, 32, None),
        "general": (4, 8, 1e-6),
        "reddit": (8, 16, None),
    }
    assert {(one.dropout, tuple(one.target_modules)) for one in stage.lora.values()} == {(0.05, ("q_proj", "v_proj"))}
    assert stage.mix == translated("dpo_train_mt", "--use_3way_hybrid").stages[0].mix
    extra = translated("dpo_train_mt", "--use_hybrid --lr_finance 1e-6 --mtbench_pairs 50").stages[0].lora
    assert isinstance(extra, dict) and sorted(extra) == ["finance", "mt_bench", "reddit"]
    kinds = {"Anthropic/hh-rlhf": "hh", "a/b": "table", "Intel/orca_dpo_pairs": "orca"}
    for id, kind in kinds.items():
        recipe = translated("dpo_train_mt", f"--use_3way_hybrid --general_dataset {id}")
        assert recipe.sources["general"].kind == kind
    tasks = translated("dpo_train_mt", "--do_mtbench false --eval_limit 7 --no_4bit").evaluation.tasks
    assert tasks.mt_bench is None and tasks.tatqa is not None and tasks.tatqa.limit == 7
    assert output_dir(settings_of("dpo_train_mt", {"use_hybrid": True})) == "qwen3_reddit_finance_dpo_hybrid"
    assert run_name(settings_of("dpo_train_mt_v2", {"progressive": True, "stage": 2})) == "progressive-stage2"


DOMAIN_FLAGS = "--lora_r_finance 16 --lora_r_general 4"
"""As the original notes print them: without a word about the mix."""


def shown(program: str, line: str, capsys: pytest.CaptureFixture[str]) -> tuple[Recipe, list[str]]:
    """The recipe that `--show` prints, and its `!` lines."""
    assert main(program, shlex.split(f"{line} --show")) == 0
    out = capsys.readouterr().out
    return parse_recipe(out[: out.find("\n!") + 1 or None]), [row for row in out.splitlines() if row.startswith("! ")]


def test_flags_of_domains_without_pairs_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    alone, said = shown("dpo_train_mt", DOMAIN_FLAGS, capsys)
    assert isinstance(alone.stages[0].lora, Lora) and alone.stages == translated("dpo_train_mt", "").stages
    assert said == [
        "! --lora_r_finance: nothing to act on: there are no finance pairs in this mix",
        "! --lora_r_general: nothing to act on: there are no general pairs in this mix",
    ]
    two, said = shown("dpo_train_mt", f"--use_hybrid {DOMAIN_FLAGS}", capsys)
    lora = two.stages[0].lora
    assert isinstance(lora, dict) and {name: one.rank for name, one in lora.items()} == {"finance": 16, "reddit": 8}
    assert said[0].startswith("! --lora_r_finance: each domain has an adapter of its own")
    assert said[1:] == ["! --lora_r_general: nothing to act on: there are no general pairs in this mix"]


def test_show_needs_no_earlier_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "--progressive --stage 2 --stage2_beta 0.03 --exp_tag t --output_dir out"
    recipe, said = shown("dpo_train_mt_v2", line, capsys)
    assert [stage.dpo.beta for stage in recipe.stages] == [0.01, 0.03]
    assert said[0] == "! --stage 2: there is no out/t-stage1; run --stage 1 first, with the same --exp_tag"
    assert len(said) == 2 and said[1].startswith("! --stage: a run has the stages up to this one")
    assert main("dpo_train_mt_v2", shlex.split(line)) == 2
    assert "there is no out/t-stage1" in capsys.readouterr().err


def test_the_twin_says_which_flags_it_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--pocket --model a/b --max_length 1999 --eval_limit 30 --mtbench_limit 500 --reddit_limit 9 --beta 0.5"
    recipe, said = shown("dpo_train_mt", line, capsys)
    limits = {name: task.limit for name, task in recipe.evaluation.tasks.chosen().items()}
    assert limits == {"tatqa": 30, "mt_bench": 80, "finance_instruct": 120, "reddit": 9}
    assert recipe.stages[0].dpo.beta == 0.5
    assert said == [
        "! --model, --max_length: the pocket twin has its own",
        "! --eval_limit, --mtbench_limit, --reddit_limit: the pocket twin's own number where that is smaller",
    ]
    assert shown("dpo_train_mt", "--model a/b", capsys)[1] == []


def test_warnings_of_libraries_stay_out_of_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.resetwarnings()
        shown("dpo_train_mt", "", capsys)
        warnings.warn_explicit("old", FutureWarning, "x.py", 1, module="transformers.modeling_utils")
        warnings.warn_explicit("ours", FutureWarning, "x.py", 1, module="equipoise.x")
    assert [str(one.message) for one in heard] == ["ours"]


def test_old_meanings_that_were_faults_are_explained_once_each() -> None:
    said = meanings({"hybrid_ratio": 0.5, "eval_temperature": 0.2, "eval_top_p": 0.9, "beta": 0.1}, "hybrid")
    assert [line.partition(":")[0] for line in said] == ["--hybrid_ratio", "--eval_temperature, --eval_top_p"]
    assert "exactly" in said[0] and "greedy" in said[1]
    assert meanings({"hybrid_ratio": 0.5, "beta": 0.1}, "reddit") == [
        "--hybrid_ratio: not used in this kind of experiment (reddit)"
    ]
    assert "--stageN_beta" in meanings({"beta": 0.1}, "progressive")[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--use_hybrid --use_3way_hybrid", "choose one"),
        ("--stage 2", "--progressive"),
        ("--progressive --stage 4", "1 to 3"),
        ("--use_3way_hybrid --reddit_ratio 0.9", "sum to 1.5"),
        ("--exp_tag ../x", "letters"),
        ("--do_eval false --do_mtbench false --do_instruct false --do_reddit false", "at least one"),
    ],
)
def test_contradictions_are_one_line(line: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        translated("dpo_train_mt", line)
    assert "\n" not in str(caught.value)


def test_another_recipe_is_not_listed_whole(tmp_path: Path) -> None:
    one, other = translated("dpo_train_mt", ""), translated("run_3way_hybrid", "--progressive false --seed 7")
    write_json(tmp_path / "recipe.json", resolved(one))
    with pytest.raises(InputError) as caught:
        require_same_recipe(other, Run(tmp_path))
    _, *listed = str(caught.value).splitlines()
    changes = changed_fields(one, other)
    assert len(changes) > 9 and listed == [*changes[:8], f"and {len(changes) - 8} more"]


@pytest.mark.parametrize("script", ["dpo_train_mt", "dpo_train_mt_v2", "run_3way_hybrid"])
def test_help_is_fast(script: str) -> None:
    """Generous here, since other work may run beside: it answers in 0.15 s on a quiet machine."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, ROOT / "compat" / f"{script}.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--stage2_beta" in done.stdout, done.stderr
    assert time.perf_counter() - started < 3


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twins of a few steps and questions, and a folder of their own to run in."""
    twin = importlib.import_module("equipoise.pocket.twin")
    monkeypatch.setattr(twin, "LIMITS", {"tatqa": 12, "reddit": 10})
    monkeypatch.setattr(twin, "ROWS", {"reddit": 300, "orca": 100, "finance_instruct": 100})
    monkeypatch.setattr(twin, "MOST_STEPS", 2)
    monkeypatch.setattr(twin, "PAIRS", (16, 32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TATQA_ALONE = "--do_mtbench false --do_instruct false --do_reddit false"
STAGED = f"--progressive --pocket {TATQA_ALONE} --exp_tag t --output_dir out --stage"


def test_stage_2_goes_on_from_stage_1(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains the second stage alone, and ends as a run of both stages does."""
    assert main("dpo_train_mt_v2", shlex.split(f"{STAGED} 2")) == 2
    said = capsys.readouterr().err.strip()
    assert "no out/t-stage1" in said and "\n" not in said
    assert main("dpo_train_mt_v2", shlex.split(f"{STAGED} 1 --stage1_beta 0.02 --instruct_limit 25")) in (0, 1)
    # A flag that was given its default is a given one all the same: the next stage's twin has this limit too.
    assert read_json(tiny / "out/t-stage1.flags.json")["instruct_limit"] == 25
    assert "beta: 0.02" in capsys.readouterr().out
    assert main("dpo_train_mt_v2", shlex.split(f"{STAGED} 2 --seed 7")) == 2
    assert "seed: 42 -> 7" in capsys.readouterr().err
    assert main("dpo_train_mt_v2", shlex.split(f"{STAGED} 2")) in (0, 1)
    first, both = Run(tiny / "out/t-stage1"), Run(tiny / "out/t-stage2")
    events = [json.loads(line) for line in (both.folder / "events.jsonl").read_text().splitlines()]
    assert [one["stage"] for one in events if one["event"] == "trained"] == ["finance-specialisation"]
    stored = read_json(both.folder / "recipe.json")
    assert [stage["dpo"]["beta"] for stage in stored["stages"]] == [0.02, 0.018]
    adapter = "stages/1-general-preservation/adapter/adapter_model.safetensors"
    assert (first.folder / adapter).read_bytes() == (both.folder / adapter).read_bytes()
    assert verify(both) == []
    importlib.import_module("equipoise").run(load_recipe(tiny / "out/t-stage2.yaml"), out=tiny / "straight")
    for name in (
        "verdict.json",
        "data/ledger.json",
        "stages/2-finance-specialisation/adapter/adapter_model.safetensors",
    ):
        assert (tiny / "straight/t-stage2" / name).read_bytes() == (both.folder / name).read_bytes(), name
    next(first.folder.glob("stages/*/adapter/adapter_model.safetensors")).unlink()
    assert main("dpo_train_mt_v2", shlex.split(f"{STAGED} 2")) == 2
    assert "missing or changed" in capsys.readouterr().err


def test_a_command_runs_and_again_it_is_done(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = shlex.split(
        "--pocket --do_mtbench false --do_instruct false --exp_tag one --output_dir out --eval_top_p 0.5"
    )
    assert main("dpo_train_mt", line) == 0
    shown = capsys.readouterr().out
    assert "id: pocket" in shown and "! --eval_top_p: answers are greedy" in shown and "kept: 1-reddit" in shown
    assert load_recipe(tiny / "out/one.yaml") == load_recipe(tiny / "out/one/recipe.yaml")
    assert main("dpo_train_mt", line) == 0
    logged = [json.loads(row) for row in (tiny / "dpo_experiments.jsonl").read_text().splitlines()]
    assert [row["tag"] for row in logged] == ["one", "one"] and logged[0]["tatqa"]["verdict"]
    assert main("dpo_train_mt", [*line, "--beta", "0.5"]) == 2
    assert "0.03 -> 0.5" in capsys.readouterr().err
    adapter = str(tiny / "out/one/stages/1-reddit/adapter")
    assert main("dpo_train_mt", [*line, "--no_train", "--load_adapter", adapter]) == 0
    assert len((tiny / "out/one-scores/tatqa.jsonl").read_text().splitlines()) == 12
    assert (tiny / "out/one-scores/reddit.jsonl").read_bytes() == (
        tiny / "out/one/scores/1-reddit/reddit.jsonl"
    ).read_bytes()
    assert main("dpo_train_mt", [*line, "--load_adapter", adapter, "--exp_tag", "two"]) == 2
    assert "--no_train" in capsys.readouterr().err
