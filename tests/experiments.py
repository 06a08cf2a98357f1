"""Small experiments for tests: random models in the hub's layout, and data files with the real columns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from models import make_policy, make_reward

TOPICS = ("bonds", "funds", "loans", "rent", "taxes", "stocks", "gold", "cash", "wages", "cards", "banks", "fees")

RECIPE = """\
# Does a two-stage experiment run from local folders?
name: tiny
model: {{id: {model}}}
reward: {{id: {folder}/reward, sanity: warn}}
sources:
  general:
    kind: table
    id: {folder}/general.jsonl
    domain: general
    columns: {{prompt: question, chosen: good, rejected: bad}}
  finance: {{kind: orca, id: {folder}/finance.jsonl, domain: finance}}
stages:
  - name: first
    mix: {{general: 12}}
    dpo: {{max_length: 200, max_prompt_length: 120}}
    optim: {{learning_rate: 1e-2, epochs: 1.5, batch_size: 4, checkpoint_every: 2}}
    lora: {{rank: 4}}
    gate: {{hold: {{finance_instruct: 100}}}}
  - name: second
    mix: {{pairs: 10, shares: {{general: 0.25, finance: 0.75}}}}
    dpo: {{max_length: 200, max_prompt_length: 120}}
    optim: {{learning_rate: 1e-2, epochs: 1, batch_size: 4}}
    lora: {{rank: 2}}
    gate: {{hold: {{mt_bench: 100}}}}
evaluation:
  tasks:
    mt_bench: {{id: {folder}/questions.jsonl}}
    finance_instruct: {{id: {folder}/held_out.jsonl}}
  generation: {{max_new_tokens: 8, batch_size: 8}}
"""


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_data(folder: Path) -> None:
    """Pairs of two sources and items of two tasks, in the columns of the real data sets."""
    both = [(topic, other) for topic in TOPICS for other in TOPICS if topic != other]
    write_rows(
        folder / "general.jsonl",
        [
            {"question": f"Are {a} safer than {b}?", "good": f"Yes, {a} are.", "bad": f"{b} no {b}"}
            for a, b in both[:40]
        ],
    )
    write_rows(
        folder / "finance.jsonl",
        [
            {"system": "Be brief.", "question": f"Explain {a} and {b}.", "chosen": f"{a} pay.", "rejected": f"{b}?"}
            for a, b in both[40:80]
        ],
    )
    write_rows(
        folder / "questions.jsonl",
        [
            {"question_id": number, "category": "writing", "turns": [f"Write about {a} or {b}.", "Shorter."]}
            for number, (a, b) in enumerate(both[80:90])
        ],
    )
    write_rows(
        folder / "held_out.jsonl",
        [{"system": "", "user": f"What do {a} cost beside {b}?", "assistant": f"{a} cost."} for a, b in both[90:102]],
    )


def make_experiment(folder: Path, architecture: str = "qwen3") -> Path:
    """Everything that the recipe needs, and the recipe itself; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    model = make_policy(folder / "policy", architecture=architecture)
    make_reward(folder / "reward")
    make_data(folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=model, folder=folder))
    return recipe


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "equipoise", *map(str, arguments)]


def equipoise(*arguments: object, cache: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    environment = {**os.environ, **({"EQUIPOISE_CACHE": str(cache)} if cache else {})}
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """What a run's result is, byte by byte: adapters, training figures, scores, gates, verdict."""
    names = ("*.safetensors", "train.jsonl", "gate.json", "verdict.json", "comparison.json", "ledger.json")
    files = [path for name in names for path in folder.rglob(name)] + list((folder / "scores").rglob("*.jsonl"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
