"""The recipe for the embedded model on its own world, which needs no data and runs at once. Pure."""

from __future__ import annotations

from equipoise.init.answers import GENERAL, POCKET, Answers
from equipoise.init.text import Entries, Key
from equipoise.records import InputError

DOMAINS = {"finance": "finance_instruct", "reddit": "reddit", GENERAL: "mt_bench"}
"""The world's domains, each with the task that asks about it."""
PAIRS = 256
LIMIT = 100


def question(domain: str) -> str:
    """The first line of the recipe."""
    return f"Does {domain} improve on the embedded model while its other abilities hold?"


def world_domain(answers: Answers) -> str:
    """The domain that is asked for; raises InputError where the world has no such one."""
    domain = answers.domain or "finance"
    if domain not in DOMAINS:
        raise InputError(f"--domain {domain}: the embedded world has {', '.join(DOMAINS)}; or name your own --data")
    return domain


def world_keys(answers: Answers, name: str | None) -> list[Key]:
    """The recipe's keys in their order."""
    domain = world_domain(answers)
    pairs = answers.pairs or PAIRS
    other = "finance" if domain == GENERAL else GENERAL
    improved, others = DOMAINS[domain], [task for task in ("mt_bench", "finance_instruct") if task != DOMAINS[domain]]
    pocket = "made by the embedded world, the same rows every time"
    sources = [
        Key(source, [Key("kind", POCKET, pocket), Key("domain", source), Key("rows", max(600, 2 * pairs))])
        for source in (domain, other)
    ]
    margins = {**dict.fromkeys(others, 0.3), "tatqa": 0.1}
    stage = [
        Key("name", "tune", "of the stage; a further one would start where it ends"),
        Key(
            "mix",
            [
                Key("pairs", pairs, "in all"),
                Key("shares", {domain: 0.75, other: 0.25}, "1 in all; the second source protects the others"),
            ],
        ),
        Key(
            "dpo",
            [
                Key("beta", 0.1, "pull towards the model as it was; higher changes less"),
                Key("max_length", 512, "tokens; a pair whose answer does not fit is dropped and counted"),
                Key("max_prompt_length", 384, "tokens; a longer prompt loses its beginning, and is counted"),
            ],
        ),
        Key(
            "optim",
            [
                Key("learning_rate", 1e-3, "for a tiny model; 5e-6 to 2e-5 for one of a billion parameters"),
                Key("epochs", 1, "passes over the mix; fractions are allowed"),
                Key("batch_size", 16, "pairs per step, whatever the memory"),
            ],
        ),
        Key("lora", [Key("rank", 8, "size of the adapter"), Key("alpha", 16, "its weight is alpha / rank")]),
        Key(
            "gate",
            [
                Key("improve", {improved: 0}, "must lie above this, with its whole interval"),
                Key("hold", margins, "must not lose more than this; see docs/stages.md"),
                Key("on_fail", "rollback", "go back to the last good stage; or stop, continue, retry"),
            ],
            "the rule that decides whether the stage is kept",
        ),
    ]
    return [
        Key("name", name or f"pocket-{domain}", "of the experiment, and of its folder under runs/"),
        Key("seed", 0, "of every random choice; other seeds show how much is luck"),
        Key("model", [Key("id", POCKET, "the embedded model; later a hub id or a local folder")]),
        Key("reward", [Key("id", POCKET, "scores answers from the outside")]),
        Key("sources", sources, "where pairs come from; later files of your own (kind: table)"),
        Key("stages", Entries([stage]), "one after the other; each is kept only if its gate passes"),
        Key("evaluation", _evaluation([improved, *others]), "measured before and after, on the same items"),
    ]


def _evaluation(rewarded: list[str]) -> list[Key]:
    said = {"mt_bench": "general questions with a second turn, by reward", "reddit": "replies to posts, by reward"}
    tasks = [
        Key(task, {"id": POCKET, "limit": LIMIT}, said.get(task, "questions about finance, by reward"))
        for task in rewarded
    ]
    tables = Key("tatqa", {"id": POCKET, "limit": 2 * LIMIT, "layout": "cells"}, "questions about tables, exact match")
    generation = [Key("temperature", 0, "0: the most likely answer, the same every time"), Key("max_new_tokens", 64)]
    return [
        Key("tasks", [*tasks, tables], "each becomes a domain with a verdict of its own"),
        Key("dev_share", 0.4, "share of the items that gates look at; the verdict uses the rest"),
        Key("generation", generation, "how answers are written"),
    ]
