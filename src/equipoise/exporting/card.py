"""The model card: what a stranger must know before using the export, made of the run's own figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from equipoise.exporting import card_rows
from equipoise.exporting.choice import Chosen
from equipoise.exporting.metadata import licence, metadata
from equipoise.exporting.probes import Check
from equipoise.exporting.public import base_name, hub_id, public
from equipoise.recipe import ModelSpec
from equipoise.recipe_file import RecipeError, fingerprint, parse_recipe
from equipoise.recipe_text import question_of, recipe_text
from equipoise.report import text, verdict, words
from equipoise.report.figures import figures
from equipoise.report.read import RunFiles, read_run
from equipoise.run_folder import write_text


@dataclass(frozen=True)
class CardFacts:
    """What a card is about; `repo` is where the export goes on the hub, if it does."""

    chosen: Chosen
    spec: ModelSpec
    base: Path
    """Folder of the base model."""
    form: str
    check: Check
    folders: tuple[str, ...]
    """Folders of the adapters in the export, where there is one for each stage."""
    templated: bool
    """Whether the chat template knows `enable_thinking`."""
    gguf: bool
    """Whether `model.gguf` lies beside it."""
    repo: str | None = None


def write_card(facts: CardFacts, folder: Path) -> None:
    """Write `README.md` and, beside it, `recipe.yaml`."""
    read = read_run(facts.chosen.run)
    files = _of_export(facts.chosen, read)
    write_text(folder / "recipe.yaml", public(_recipe(facts.chosen, files.written)))
    said = card(facts, files)
    for id in sorted(_ids(read.recipe), key=len, reverse=True):
        said = said.replace(id, base_name(id))
    write_text(folder / "README.md", public(said))


def card(facts: CardFacts, files: RunFiles) -> str:
    """The card as text, metadata included; `files` are those of the exported stages."""
    chosen, known = facts.chosen, figures(files)
    name = (facts.repo or chosen.run.name).rpartition("/")[2]
    rows = files.compared
    head = metadata(chosen, facts.base, rows, merged=facts.form == "merged", name=name)
    return (
        _environment()
        .get_template("card.md")
        .render(
            metadata=head.to_yaml(),
            name=name,
            facts=facts,
            question=question_of(files.written) if files.written.startswith("#") else "",
            trained=verdict.trained(files),
            result=" ".join(filter(None, [words.mix_line(files), verdict.result(files, known)])),
            refused=[
                f"{stage.point}: {said}"
                for stage in files.stages
                if not stage.kept
                for said in card_rows.reasons(stage)
            ],
            rows=[card_rows.domain_row(row) for row in rows.values()],
            confidence=f"{files.confidence * 100:g}%",
            measured=[card_rows.measured(chosen, domain, rows[domain].n) for domain in rows],
            sources=card_rows.sources(chosen, files),
            stages=[card_rows.stage_row(chosen, stage) for stage in files.stages],
            gates=[(stage.point, card_rows.reasons(stage)) for stage in files.stages],
            limits=card_rows.limits(chosen, files, words.warnings(files, known)),
            base=_base(facts),
            licence=licence(facts.spec.id, facts.base),
            origin=files.provenance,
            fingerprint=fingerprint(chosen.recipe),
        )
    )


def _ids(value: Any) -> set[str]:
    """Ids of a recipe that are places on this machine."""
    if isinstance(value, list):
        return {id for one in value for id in _ids(one)}
    if not isinstance(value, Mapping):
        return set()
    id = value.get("id")
    own = {id} if isinstance(id, str) and "/" in id and Path(id).name and not hub_id(id) else set()
    return own | {id for one in value.values() for id in _ids(one)}


def _of_export(chosen: Chosen, files: RunFiles) -> RunFiles:
    """The run as if it had had the exported stages alone."""
    stages = [stage for stage in files.stages if stage.point in chosen.stages]
    names, lines = {stage.name for stage in stages}, files.ledger.get("stages", {})
    model = {"id": "the embedded model of equipoise" if chosen.recipe.model.id == "pocket" else chosen.recipe.model.id}
    return replace(
        files,
        stages=stages,
        recipe={**files.recipe, "model": model},
        ledger={**files.ledger, "stages": {name: line for name, line in lines.items() if name in names}},
        verdict={**files.verdict, "point": chosen.point},
    )


@cache
def _environment() -> Environment:
    """Texts of a run pass the filter `line`: none becomes markup, a table cell of its own or another line."""
    environment = Environment(
        loader=PackageLoader("equipoise.exporting", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"line": _line, "listed": text.listed, "count": text.count}
    return environment


def _line(value: object) -> str:
    """One line of Markdown that says `value` and does nothing else."""
    said = " ".join(text.visible(str(value)).split())
    for sign in "\\`*_[]|":
        said = said.replace(sign, f"\\{sign}")
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _base(facts: CardFacts) -> dict[str, Any]:
    """How the base model is named and got by others."""
    spec = facts.spec
    return {
        "id": base_name(spec.id),
        "hub": hub_id(spec.id),
        "revision": spec.revision,
        "pocket": spec.id == "pocket",
        "four_bits": spec.quantization is not None,
        "dtype": spec.dtype,
        "thinking": spec.thinking,
    }


def _recipe(chosen: Chosen, written: str) -> str:
    """The recipe that makes this run again: as it was written, unless it was run with other values."""
    try:
        if fingerprint(parse_recipe(written)) == fingerprint(chosen.recipe):
            return written
    except RecipeError:  # it names variables of another machine, or was no recipe file
        pass
    values: Mapping[str, Any] = chosen.recipe.model_dump(mode="json", exclude_defaults=True)
    question = question_of(written) if written.startswith("#") else f"What does {chosen.recipe.name} do?"
    return recipe_text(values, question, ["As it was run, with the values of the command line."])
