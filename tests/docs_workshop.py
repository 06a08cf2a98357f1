"""A folder in which the commands of the pages can run: the names that the pages use, everything small."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from docs_pages import FENCE, ROOT
from equipoise import cli
from equipoise.pocket.world import rows
from equipoise.run_folder import write_lines
from study_runs import spread, write_run

SMALLER = (
    ("Qwen/Qwen3-1.7B", "pocket"),
    ("Skywork/Skywork-Reward-V2-Qwen3-0.6B", "pocket"),
    ("Intel/orca_dpo_pairs", "orca.jsonl"),
    ("pairs: 2000", "pairs: 40"),
    ("batch_size: 64", "batch_size: 8"),
    ("tatqa: {limit: 250}", "tatqa: {id: pocket, limit: 20, layout: cells}"),
    ("mt_bench: {}", "mt_bench: {id: pocket, limit: 20}"),
    ("finance_instruct: {limit: 200}", "finance_instruct: {id: pocket, limit: 20}"),
    ("mt_bench: 512, finance_instruct: 512", "mt_bench: 16, finance_instruct: 16"),
)
"""What makes the recipe of the README one that runs here in seconds: the keys stay, hub ids and sizes change."""


@dataclass(frozen=True)
class Result:
    """What a command did: exit code, and stdout with stderr."""

    code: int
    output: str


def readme_recipe() -> str:
    """The recipe of the README, on the embedded model and small files."""
    text = next(
        block["text"] for block in FENCE.finditer((ROOT / "README.md").read_text()) if block["language"] == "yaml"
    )
    for large, small in SMALLER:
        assert large in text, f"README.md: the recipe does not say {large} any more"
        text = text.replace(large, small)
    return text


def make_workshop(folder: Path) -> Path:
    """Fill `folder` with recipes, data files and a study under the names of the pages; returns it."""
    for name in ("recipes", "docs", "compat", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "recipe.yaml").write_text(readme_recipe())
    shutil.copy(ROOT / "recipes" / "pocket.yaml", folder / "my-recipe.yaml")
    asked = rows("finance", split="train", n=60)
    write_lines(
        folder / "pairs.jsonl",
        [{"question": row["user"], "good": row["assistant"], "bad": row["rejected"]} for row in asked],
    )
    columns = ("system", "question", "chosen", "rejected")
    write_lines(
        folder / "orca.jsonl",
        [{name: row[name] for name in columns} for row in rows("general", split="train", n=60)],
    )
    (folder / "law").mkdir()
    write_lines(
        folder / "law" / "pairs.jsonl",
        [{"prompt": row["user"], "chosen": row["assistant"], "rejected": row["rejected"]} for row in asked],
    )
    for seed in range(3):
        for name, gain, rate in (("my-recipe", 0.8, "1e-5"), ("my-recipe-one-mixture", 0.1, "2e-5")):
            gains = {"mt_bench": spread(gain), "tatqa": spread(gain + seed / 50)}
            made = write_run(folder / "runs" / "study" / f"{name}-seed{seed}", gains, name=name, seed=seed, rate=rate)
            _let_tatqa_be_finance(made)
    return folder


def _let_tatqa_be_finance(run: Path) -> None:
    """Let a run have evaluated `finance_instruct`: `write_run` knows two tasks, and the pages ask for this one."""
    records = [
        run / "recipe.json",
        *(one.rename(one.with_stem("finance_instruct")) for one in run.glob("scores/*/tatqa*")),
    ]
    for record in records:
        record.write_text(record.read_text().replace('"tatqa"', '"finance_instruct"'))
    recipe = json.loads(records[0].read_text())
    recipe["evaluation"]["tasks"]["finance_instruct"] = {"id": "local.jsonl"}
    records[0].write_text(json.dumps(recipe))


def finish_workshop(folder: Path) -> None:
    """Copy the run `runs/finance`, once it is there, and its adapter to the other names of the pages."""
    runs = folder / "runs"
    for name in ("demo", "mine"):
        shutil.copytree(runs / "finance", runs / name)
    for name, stage in (("a", "1-finance"), ("b", "1-reddit")):
        write_run(runs / name, {"tatqa": spread(0.3), "mt_bench": spread(0.2)}, rate=f"{ord(name)}e-7")
        place = f"{name}/stages/{stage}"
        shutil.copytree(runs / "finance" / "stages" / "1-finance" / "adapter", runs / place / "adapter")


def run_here(folder: Path, words: list[str]) -> Result:
    """Run a command of the program in this process, in `folder`."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(cli.app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Result(done.exit_code, done.output)
