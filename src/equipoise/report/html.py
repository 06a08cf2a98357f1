"""`write_report`: one self-contained page that explains a run to someone who was not there."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from equipoise.report import answers, data, domains, stages, text, training, unfinished, verdict, words
from equipoise.report.figures import Figure, figures
from equipoise.report.read import RunFiles, read_run
from equipoise.run_folder import Run, write_text


def write_report(run: Run) -> Path:
    """Write `report.html` into the run folder and return its path; reads nothing but that folder.

    A run that is not finished, or has damaged files, gets a page that says what is missing.
    Raises InputError where the folder holds nothing of a run.
    """
    path = run.folder / "report.html"
    write_text(path, page(read_run(run)))
    return path


def page(files: RunFiles) -> str:
    """The page as text."""
    known = figures(files)
    return (
        environment()
        .get_template("report.html")
        .render(
            files=files,
            question=_question(files.written),
            headline=_headline(files, known),
            uncompared=unfinished.uncompared(files),
            described=verdict.described(files),
            answered=verdict.first_screen(files, known),
            refusals=verdict.refusals(files),
            how_sure=verdict.how_sure(files),
            warnings=words.warnings(files, known),
            problems=words.ledger_problems(files),
            domains=domains.domains(files, known),
            paths=domains.paths(files),
            ways=data.ways(files),
            sources=data.sources(files),
            flow=data.flow(files),
            mixes=data.mixes(files),
            stages=stages.stages(files),
            figures=known,
            categories=domains.categories(files),
            examples=answers.examples(files),
            resolved=text.private(json.dumps(files.recipe, indent=2, ensure_ascii=False)),
            written=text.private(files.written),
            facts=_facts(files),
            ended=any(stage.gate is not None and stage.gate.action == "stop" for stage in files.stages),
            names=training.NAMES,
            by_source=training.BY_SOURCE,
            then=unfinished.THEN,
            **inlined(),
        )
    )


def _headline(files: RunFiles, known: Mapping[str, Sequence[Figure]]) -> str:
    """The first line: that the run failed, else another mix than asked for and the verdict."""
    said = " ".join(filter(None, [words.mix_line(files), verdict.headline(files, known)]))
    failed = unfinished.failure(files)
    return f"{failed}. {said}" if failed and files.verdict else failed or said


@cache
def inlined() -> dict[str, Markup]:
    """The pages' one script, and the policy that lets a browser run nothing but it and ask nobody for anything."""
    loader = environment().loader
    assert loader is not None
    script = loader.get_source(environment(), "report.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return {"script": Markup(script), "policy": Markup(policy)}


@cache
def environment() -> Environment:
    """The templates of the report and of the study page."""
    environment = escaping("equipoise.report")
    environment.filters |= {"svg": Markup, "count": text.count, "short": text.short, "percent": text.percent}
    environment.filters |= {"p_value": text.p_value}
    environment.filters |= {"listed": text.listed}
    return environment


def escaping(package: str) -> Environment:
    """The `templates` of a package, as every page is made: autoescape is on, and every text passes `visible`.

    So no text of a file can become markup or hide itself.
    """
    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: text.visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _question(written: str) -> str:
    """The first comment line of a recipe is the question that it asks."""
    first = written.lstrip().partition("\n")[0]
    asked, left = text.shorten(first.lstrip("# ").strip() if first.startswith("#") else "", 300)
    return f"{asked} …" if left else asked


def _facts(files: RunFiles) -> list[tuple[str, str]]:
    """Where, when and with what this ran."""
    origin = files.provenance
    machine, git = _part(origin, "machine"), _part(origin, "git")
    argv = origin.get("argv")
    changed = " (with changes that are not committed)" if git.get("changed") else ""
    facts = [
        ("Started", str(origin.get("started", ""))),
        ("Took", _took(files.events)),
        ("Command", " ".join(map(str, argv)) if isinstance(argv, list) else ""),
        ("Seed", str(files.seed)),
        ("Recipe fingerprint", str(files.recipe.get("fingerprint", ""))),
        ("Source code", f"{git['commit']}{changed}" if git.get("commit") else "no git checkout"),
        ("Machine", ", ".join(f"{key} {value}" for key, value in machine.items())),
        ("Versions", ", ".join(f"{key} {value}" for key, value in _part(origin, "versions").items())),
    ]
    for kind, hashes in _part(origin, "data").items():
        if isinstance(hashes, dict):
            facts.append((f"Content of {kind}", ", ".join(f"{name} {value}" for name, value in hashes.items())))
    return [(name, text.private(value)) for name, value in facts if value]


def _part(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _is_time(value: Any) -> bool:
    """Whether a file's value is a time of this age; anything else comes from an editor."""
    return isinstance(value, (int, float)) and 0 < value < 2**33


def _took(events: list[dict[str, Any]]) -> str:
    """From the first to the last event; a run that was resumed says so, since its pauses count too."""
    times = [event["time"] for event in events if _is_time(event.get("time"))]
    if len(times) < 2:
        return ""
    begun = sum(event.get("event") == "begin" for event in events)
    pauses = f", begun {begun} times, pauses included" if begun > 1 else ""
    last = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(times[-1]))
    return f"{text.duration(times[-1] - times[0])} until {last}{pauses}"
