"""Every command in the blocks of README and docs/ is executed, or stands below with the reason why it is not here.

One that is not executed must still parse: its options, its target, its program and its files are there.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs_pages import FENCE, PAGES, ROOT, Command, commands, commands_of, mentioned, require_parses
from docs_workshop import Result, finish_workshop, make_workshop, readme_recipe, run_here
from equipoise.compat.program import main as compat
from equipoise.study.space import read_space
from ui_process import ask_ui

SHOWN = [command for page in PAGES for command in commands(page)]
TOUR = "docs/tour.md"
"""A page of its own: its commands are one story, with their output (test_docs_tour.py)."""
HUB = "needs a model from the hub"
MINUTES = "takes minutes"
ADAPTERS = "runs/a/stages/1-finance/adapter runs/b/stages/1-reddit/adapter"


@dataclass(frozen=True)
class Case:
    """What a command must do in the workshop: its exit code, texts in its output, files that it leaves."""

    says: tuple[str, ...] = ()
    code: int = 0
    leaves: tuple[str, ...] = ()
    within: str = "."


EXECUTED: dict[str, Case] = {
    "equipoise run recipe.yaml": Case(
        ("Verdict", "report: runs/finance/report.html"), leaves=("runs/finance/report.html",)
    ),
    "equipoise run --resume runs/finance": Case(("report: runs/finance/report.html",)),
    "equipoise plan recipe.yaml": Case(
        ("Sources", "steps", "tokens", "Memory in training", "smallest effect", "s in all")
    ),
    "equipoise data recipe.yaml --show 3": Case(("Sources", "asked", "finance")),
    "equipoise watch runs/finance": Case(("finance", "finished")),
    "equipoise watch runs/finance --once": Case(("finance", "finished")),
    "equipoise watch runs/finance --json": Case(('"state": "finished"',)),
    "equipoise init recipe.yaml --model Qwen/Qwen3-1.7B --data pairs.jsonl --domain law": Case(
        ("checked: the recipe loads", "left to equipoise plan"), leaves=("recipe.yaml",), within="law"
    ),
    "equipoise recipes schema --out recipe.schema.json": Case(leaves=("recipe.schema.json",)),
    "equipoise recipes": Case(("3-hybrid-2way-as-built", "8-progressive-3stage-as-designed", "pocket-mixed")),
    "equipoise recipes show 3-hybrid-2way-as-built": Case(("stages:", "fallback: true")),
    "equipoise recipes pocket 3-hybrid-2way-as-built --out twin.yaml": Case(leaves=("twin.yaml",)),
    **{
        f"equipoise recipes control my-recipe.yaml --as {kind} --out {name}.yaml": Case(leaves=(f"{name}.yaml",))
        for kind, name in (("ungated", "my-ungated"), ("one-mixture", "my-mixture"), ("reversed", "my-reversed"))
    },
    "equipoise audit-table docs/original-experiments.yaml": Case(("33 claims: 0 real, 9 possible, 24 noise",)),
    "equipoise leaderboard runs/study": Case(("my-recipe", "my-recipe-one-mixture")),
    "equipoise leaderboard runs/study --versus my-recipe-one-mixture": Case(("my-recipe-one-mixture",)),
    "equipoise recommend runs/study --priority finance_instruct --out ship.yaml": Case(
        ("ship my-recipe\n",), leaves=("ship.yaml",)
    ),
    "equipoise report runs/study": Case(("runs/study/report.html",), leaves=("runs/study/report.html",)),
    "equipoise report runs/a runs/b --out compared.html": Case(leaves=("compared.html",)),
    f"equipoise merge {ADAPTERS} --weights 0.7,0.5 --out merged": Case(
        leaves=("merged/adapter_model.safetensors", "merged/merge.json")
    ),
    "equipoise export runs/demo --to out/adapter": Case(leaves=("out/adapter/adapter_model.safetensors",)),
    "equipoise export runs/demo --to out/model --merge": Case(leaves=("out/model/model.safetensors",)),
    "equipoise export runs/demo --to out/stages --separate": Case(leaves=("out/stages/1-finance/adapter_config.json",)),
}
"""In this order, in one folder (docs_workshop.py)."""
KNOWN = [one for one in SHOWN if one.text.startswith("python compat/")]
SEPARATE = {
    "equipoise ui DIR --port 0": "test_the_app_answers",
    **{one.text: "test_known_command_lines" for one in KNOWN},
    "equipoise eval pocket --adapter merged": "test_a_merged_adapter_is_scored",
}
"""Executed by the named test of this file."""
NOT_EXECUTED = {
    "make demo": f"{MINUTES}; test_docs_tour.py runs what it runs",
    "make test": "is this suite",
    "make study": f"{MINUTES}; test_docs_tables.py compares its page with what it left",
    "EQUIPOISE_REAL_DATA=/path/to/data equipoise run recipes/real-data-small.yaml": "needs the public data files",
    "equipoise study my-ungated.yaml my-mixture.yaml my-reversed.yaml --seeds 0,1,2,3,4": f"{MINUTES}: 15 runs",
    "equipoise study recipes/pocket.yaml recipes/pocket-mixed.yaml --seeds 0,1,2 --out runs/study --jobs 2": (
        f"{MINUTES}: 6 runs; test_docs_tour.py runs a study"
    ),
    "equipoise search recipe.yaml --space space.yaml --trials 40": f"{MINUTES}: 40 runs; test_search.py searches",
    "equipoise plan 3-hybrid-2way-as-built --gpu 32": HUB,
    "accelerate launch --config_file ddp.yaml -m equipoise run recipe.yaml": "needs two GPUs; see test_distributed.py",
    "equipoise ui": "its port may be taken; executed with --port 0",
    "equipoise export runs/mine --to out/model --gguf": "test_gguf.py exports one",
    "python -m equipoise.pocket.build --out DIR": f"{MINUTES}: trains the embedded model",
    "python -m equipoise.pocket.build --out DIR --evaluate-only": MINUTES,
    "python -m equipoise.pocket.build --out DIR --settle-only": MINUTES,
    "python -m equipoise.pocket.build --out DIR --reward-only": MINUTES,
}
"""Why a command is not executed here; it must parse all the same."""
FOREIGN = {"python convert_hf_to_gguf.py out/model --outfile out/model.gguf --outtype bf16": "a program of llama.cpp"}
"""Commands of other projects."""


def test_every_command_is_executed_or_has_its_reason() -> None:
    shown = {command.text for command in SHOWN if command.page != TOUR}
    known = [*EXECUTED, *SEPARATE, *NOT_EXECUTED, *FOREIGN]
    assert len(set(known)) == len(known)
    assert not shown - set(known), "in the pages, and nowhere in this file"
    assert not set(known) - shown, "in this file, and not in the pages any more"
    assert all(test in globals() for test in SEPARATE.values())


@pytest.mark.parametrize("command", [one for one in SHOWN if one.text not in FOREIGN], ids=str)
def test_commands_parse(command: Command) -> None:
    require_parses(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_have_the_options_that_they_name(page: Path) -> None:
    for command in mentioned(page):
        require_parses(command, whole=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("equipoise plan recipe.yaml --gpus 24", "No such option"),
        ("equipoise trian recipe.yaml", "no command trian"),
        ("equipoise plan", "(?i)missing"),
        ("equipoise study a.yaml --jobs many", "valid integer"),
        ("equipoise run recipes/poket.yaml", "recipes/poket.yaml is absent"),
        ("make dmeo", "no target dmeo"),
        ("python benchmarks/ladder.py --repeat 2", "no option --repeat"),
        ("python benchmarks/absent.py", "is absent"),
        ("python -m pytest tests/test_absent.py -s", "test_absent"),
    ],
)
def test_a_command_that_cannot_work_is_found(text: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        require_parses(Command("page.md", 1, text))


def test_a_page_is_read() -> None:
    first = "```bash\nequipoise plan a.yaml  # why\nA=1 make demo\nls\n```\n"
    second = "```console\n$ make test\nequipoise says\n```\n"
    assert list(commands_of(f"text\n{first}{second}", "page")) == [
        Command("page", 3, "equipoise plan a.yaml"),
        Command("page", 4, "A=1 make demo"),
        Command("page", 8, "make test", "equipoise says"),
    ]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run."""
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def results(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What each command of EXECUTED did."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIPOISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        for text, case in EXECUTED.items():
            found[text] = run_here(workshop / case.within, Command("", 0, text).words[1:])
            if text == "equipoise run recipe.yaml":
                finish_workshop(workshop)
    return found


def test_commands_do_what_the_pages_say(workshop: Path, results: dict[str, Result]) -> None:
    wrong = []
    for text, case in EXECUTED.items():
        done = results[text]
        missing = [said for said in case.says if said not in done.output]
        absent = [name for name in case.leaves if not (workshop / case.within / name).exists()]
        if done.code != case.code or missing or absent:
            wrong.append(
                f"{text}: exit code {done.code}, not said: {missing}, not left: {absent}\n{done.output[-1500:]}"
            )
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.slow
def test_a_merged_adapter_is_scored(workshop: Path, results: dict[str, Result]) -> None:
    done = run_here(workshop, ["eval", "pocket", "--adapter", "merged"])
    assert done.code == 0 and "tatqa" in done.output and "finance_instruct" in done.output


def test_the_app_answers(workshop: Path) -> None:
    page = ask_ui(workshop, "runs", "--port", "0")
    assert "study/my-recipe-seed0" in page


@pytest.mark.parametrize("command", KNOWN, ids=str)
def test_known_command_lines(command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`--show` reads every flag and prints the recipe; of the second stage it says that the first is not there yet."""
    with contextlib.chdir(tmp_path):
        code = compat(Path(command.words[1]).stem, [*command.words[2:], "--show"])
    printed = capsys.readouterr()
    assert code == 0 and "stages:" in printed.out
    assert ("there is no" in printed.out) == ("--stage 2" in command.text)


def test_the_space_of_the_page_fits_the_recipe_of_the_readme(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "studies.md").read_text()
    text = next(block["text"] for block in FENCE.finditer(page) if block["text"].startswith("space:"))
    (tmp_path / "space.yaml").write_text(text)
    (tmp_path / "recipe.yaml").write_text(readme_recipe())
    found = read_space(tmp_path / "space.yaml", tmp_path / "recipe.yaml")
    assert [one.key for one in found] == re.findall(r"^  (\S+):", text, flags=re.MULTILINE)
