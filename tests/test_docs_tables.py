"""Tables of README and docs/ are those of the files and programs that they are said to come from."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from operator import attrgetter
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import pytest

from docs_pages import ROOT, tables
from equipoise import pocket
from equipoise.commands import find_recipe
from equipoise.recipe_data import Mix
from equipoise.recipe_file import load_recipe

RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a program of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def load(name: str) -> ModuleType:
        place = ROOT / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", place)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


def result(name: str) -> Any:
    """A committed result."""
    return json.loads((RESULTS / name).read_text())


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def table_with(text: str, *head: str) -> list[list[str]]:
    """The rows below the first table whose head begins with these cells."""
    return next(one[1:] for one in tables(text) if one[0][: len(head)] == list(head))


@pytest.mark.parametrize("name", ["pocket_study", "guide_study"])
def test_pages_of_studies_hold_the_tables_of_their_results(name: str, program: Any) -> None:
    """`filled` puts the tables in; a page that has them already does not change."""
    study = program(name)
    if not study.DATA.exists():
        pytest.skip(f"{study.DATA.name} is not there yet: make study, make guide")
    text = study.PAGE.read_text()
    assert program("study_tables").filled(study.PAGE, study.tables(json.loads(study.DATA.read_text()))) == text
    assert not re.findall(r"^[A-Z]+$", text, flags=re.MULTILINE), "a text that is still to be written"


def test_what_single_runs_said_is_that_of_the_study() -> None:
    """docs/statistics.md: how many verdicts of single runs five seeds did not confirm."""
    said = {(one, five): number for one, five, number in result("pocket_study.json")["one_seed"]}

    def single(verdict: str) -> int:
        return sum(number for (one, _), number in said.items() if one == verdict)

    text = " ".join(page("statistics.md").split())
    better, worse = said["improved", "undecided"], said["worse", "undecided"]
    assert f"of {single('improved')} verdicts `improved` of single runs {better} were undecided" in text
    assert f"so were {worse} of {single('worse')} verdicts `worse`" in text
    assert said.get(("improved", "worse"), 0) == said.get(("worse", "improved"), 0) == 0


def test_a_changed_figure_of_a_study_is_found(program: Any, tmp_path: Path) -> None:
    shown = program("study_tables").table(["recipe", "gain"], [["a", "+0.10"]])
    place = tmp_path / "page.md"
    place.write_text(f"<!-- gains -->\n\n{shown}\n\n<!-- end -->\n")
    assert program("study_tables").filled(place, {"gains": shown}) == place.read_text()
    assert program("study_tables").filled(place, {"gains": shown.replace("+0.10", "+0.20")}) != place.read_text()


def test_the_ladder_is_that_of_its_result(program: Any) -> None:
    assert program("ladder")._table(result("ladder.json")) in page("performance.md")


def test_the_table_of_evaluation_is_that_of_its_result(program: Any) -> None:
    made = program("evaluation").markdown(result("evaluation.json"))
    assert made[made.index("| model |") :] in page("performance.md")


def test_the_table_of_building_pairs_is_that_of_its_result() -> None:
    shown = table_with(page("performance.md"), "rows", "side", "seconds")
    measured = {
        (rows, side): entry
        for rows, size in result("data_build.json")["sizes"].items()
        for side, entry in size["sides"].items()
    }
    assert len(shown) == len(measured)
    for rows, side, seconds, peak, gives in shown:
        entry = measured[rows.replace(",", ""), side]
        digits = len(seconds.partition(".")[2])
        assert float(seconds) == pytest.approx(median(entry["seconds"]), abs=0.51 * 10**-digits)
        assert float(peak.replace(",", "")) == round(entry["peak_mb"])
        count, _, unit = gives.partition(" ")
        assert int(count.replace(",", "")) == entry[unit]


def test_every_planted_fault_was_found() -> None:
    for size in result("data_build.json")["sizes"].values():
        assert size["planted"] == {key: size["sides"]["equipoise"]["found"].get(key) for key in size["planted"]}


def test_the_readme_shows_the_table_of_the_pocket_page() -> None:
    """Both are those of `make demo`, which test_docs_tour.py runs."""
    head = ("domain", "before", "after", "difference")
    assert table_with((ROOT / "README.md").read_text(), *head) == table_with(page("pocket.md"), *head)


def pocket_figures() -> Any:
    return json.loads((Path(pocket.__file__).parent / "weights" / "figures.json").read_text())


def test_the_figures_of_table_questions_are_those_of_the_weights() -> None:
    found = pocket_figures()["tatqa"]
    kinds = {
        "all": found["all"],
        **found["by_type"],
        **{f"- {name}": value for name, value in found["by_kind"].items()},
    }
    shown = table_with(page("pocket.md"), "type", "n", "exact match")
    assert len(shown) == 9
    for name, *cells in shown:
        figures = kinds[name]
        columns = ("exact", "majority", "random_candidate")
        assert cells == [str(figures["n"]), *(f"{figures[key]:.3f}" for key in columns)]


def test_the_figures_of_the_chat_domains_are_those_of_the_weights() -> None:
    found = pocket_figures()["chat"]
    for name, *cells in table_with(page("pocket.md"), "chat domain (n = 300)"):
        one = found[name.removesuffix(" (second turn)")]
        assert one["n"] == 300
        rounded = [f"{one['correct']:.3f}", f"{one['words']:.1f}", f"{one['truncated']:.3f}", f"{one['reward']:+.2f}"]
        assert cells == rounded
    text = page("pocket.md")
    said = re.search(r"^Right by kind: (.*?)\. Copying", text, flags=re.MULTILINE)
    assert said
    for domain, kinds in (part.split(": ", 1) for part in said[1].split("; ")):
        shown = dict(kind.rsplit(" ", 1) for kind in kinds.split(", "))
        assert shown == {kind: f"{share:.2f}" for kind, share in found[domain]["by_kind"].items()}


def test_the_figures_of_the_reward_model_are_those_of_the_weights() -> None:
    found = pocket_figures()["reward_accuracy"]
    head, *rows = next(one for one in tables(page("pocket.md")) if one[0][0].startswith("reward model"))
    keys = {"clean pairs": "clean", "noisy pairs": "noisy", '"longer wins" on clean pairs': "longer_wins"}
    for name, *cells in rows:
        assert cells == [f"{found[keys[name]][domain]:.3f}" for domain in head[1:]]
    broken = ", ".join(f"{kind} {share:.3f}" for kind, share in found["broken"].items())
    assert f"Right answer above its broken form: {broken}." in page("pocket.md")
    same = ", ".join(f"{kind} {share:.3f}" for kind, share in pocket_figures()["same_text_in_bf16"].items())
    assert f"(n = 150): {same}." in page("pocket.md")


def test_the_original_recipes_have_the_values_of_their_table() -> None:
    """A value that all stages share may stand once."""
    shown = table_with(page("original-recipes.md"), "recipe", "stages", "pairs")
    assert len(shown) == 7
    for name, stages, pairs, *values in shown:
        recipe = load_recipe(find_recipe(Path(f"{name.strip('`')}-as-designed")))
        assert int(stages) == len(recipe.stages)
        assert pairs == ", ".join(f"{pairs_of(stage.mix):,}" for stage in recipe.stages)
        for value, key in zip(values, ("dpo.beta", "optim.learning_rate", "optim.epochs", "lora.rank"), strict=True):
            found = [attrgetter(key)(stage) for stage in recipe.stages]
            said = [float(part) for part in value.split(", ")]
            assert said in (found, found[:1] if len(set(found)) == 1 else found), f"{name} {key}"


def pairs_of(mix: Mix) -> int:
    return mix.pairs if mix.pairs is not None else sum((mix.counts or {}).values())


@pytest.mark.slow
def test_the_gradients_are_as_long_as_the_page_says(program: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = program("gradient_size")
    sys.argv = ["gradient_size.py"]
    sizes.main()
    assert tables(capsys.readouterr().out)[0] == [
        ["domain", "answer tokens", "measured", "expected", "off by"],
        *table_with(page("data.md"), "domain", "answer tokens"),
    ]


def test_pictures_are_small_ask_for_nothing_and_show_the_demo() -> None:
    pictures = ROOT / "docs" / "pictures"
    for name in ("report.png", "report-dark.png"):
        assert (pictures / name).read_bytes().startswith(b"\x89PNG") and (pictures / name).stat().st_size < 300_000
    terminal = (pictures / "terminal.svg").read_text()
    assert "equipoise watch" in terminal.replace("&#160;", " ")
    assert not re.search(r"url\((?!#)|href=", terminal)
    for row in table_with((ROOT / "README.md").read_text(), "domain", "before"):
        assert all(figure in terminal for figure in row[:4])
