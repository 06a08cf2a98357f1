"""`equipoise init`: files are recognised, values are sensible, every line is explained, and what is written loads."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.data.built import Built
from equipoise.data.sources import build
from equipoise.init import settings
from equipoise.init.answers import Answers, parse_columns, require_answers
from equipoise.init.ask import ask_rest
from equipoise.init.layout import Row, recognise
from equipoise.init.look import look
from equipoise.init.model import size_in
from equipoise.init.text import Entries, Key, scalar, values, written
from equipoise.init.write import make_recipe
from equipoise.recipe_file import load_recipe, parse_recipe
from equipoise.records import InputError, Message, Pair
from equipoise.yaml_text import parse_yaml, plain
from models import make_policy, make_reward

TURN = [{"role": "user", "content": "Why?"}]
ANSWER = {"role": "assistant", "content": "So."}
WORDS = ("bond", "loan", "rate", "fund", "share", "bank", "price", "risk", "cash", "tax", "debt", "gain")


def pairs(count: int, **names: str) -> list[dict[str, Any]]:
    """Rows of different pairs; `names` are the columns of prompt, chosen and rejected."""
    made = []
    for n in range(count):
        a, b, c = WORDS[n % 12], WORDS[n // 12 % 12], WORDS[n * 5 % 12]
        texts = {
            "prompt": f"What is a {a} to a {b}, number {n}? Tell me of {c}.",
            "chosen": f"A {a} is like a {b}: {n} is what the {c} says of it.",
            "rejected": f"No {c} knows {n} of a {b} or any {a} at all.",
        }
        made.append({names.get(key, key): text for key, text in texts.items()})
    return made


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a file of the kind that its name says."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


LAYOUTS: dict[str, tuple[Row, str, dict[str, Any]]] = {
    "orca": ({"system": "s", "question": "q", "chosen": "a", "rejected": "b"}, "orca", {}),
    "hh": ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}, "hh", {}),
    "reddit": (
        {"id": "1", "subreddit": "s", "title": "t", "selftext": "x", "body": "y", "z_score": 1.0},
        "reddit",
        {"score": "z_score", "rule": "original"},
    ),
    "finance_instruct": ({"system": "", "user": "q", "assistant": "a"}, "finance_instruct", {}),
    "prompt, chosen, rejected": (
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        "table",
        {"columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}},
    ),
    "other names, a system message, a group": (
        {"system_prompt": "s", "question": "q", "better": "a", "worse": "b", "group": 3},
        "table",
        {
            "columns": {
                "prompt": "question",
                "system": "system_prompt",
                "chosen": "better",
                "rejected": "worse",
                "group": "group",
            }
        },
    ),
    "conversations": (
        {"prompt": "Why?", "chosen": [*TURN, ANSWER], "rejected": [*TURN, ANSWER], "score_chosen": 8.0},
        "table",
        {"columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}},
    ),
    "conversations that hold their prompt": (
        {"chosen": [*TURN, ANSWER], "rejected": [*TURN, ANSWER]},
        "table",
        {"columns": {"prompt": "chosen", "chosen": "chosen", "rejected": "rejected"}},
    ),
    "instruction and input, with three labels": (
        {"instruction": "q", "input": "x", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": "2.0"},
        "table",
        {
            "columns": {
                "prompt": ["instruction", "input"],
                "first": "response1",
                "second": "response2",
                "label": ["annotator1", "annotator2"],
            }
        },
    ),
    "one label": (
        {"input": "q", "output_1": "a", "output_2": "b", "label": 2},
        "table",
        {"columns": {"prompt": "input", "first": "output_1", "second": "output_2", "label": "label"}},
    ),
    "prompts alone": ({"instruction": "q", "output": "a"}, "on_policy", {"columns": {"prompt": "instruction"}}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_recognised(name: str) -> None:
    row, kind, options = LAYOUTS[name]
    found = recognise([row])
    assert found is not None
    assert (found.kind, dict(found.options)) == (kind, options)


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1, "b": 2},
        {"chosen": "a", "rejected": "b"},
        {"prompt": "q", "response_a": "a", "response_b": "b", "winner": "model_a"},
        {"question_id": 1, "turns": ["q"]},
    ],
)
def test_what_is_not_known_is_not_guessed(row: Row) -> None:
    assert recognise([row]) is None


def test_settings_by_hand() -> None:
    """A billion parameters and 2,000 pairs; 60 pairs for a tiny model."""
    large = settings.training(2000, 1_700_000_000)
    assert (large.learning_rate, large.beta, large.epochs, large.batch_size, large.rank) == (1e-5, 0.1, 1, 64, 16)
    tiny = settings.training(60, 1_000_000)
    assert (tiny.learning_rate, tiny.beta, tiny.epochs, tiny.batch_size, tiny.rank) == (1e-3, 0.2, 3, 8, 8)
    assert settings.training(5, None).batch_size == 4
    assert settings.training(1000, 8_000_000_000).learning_rate == 5e-6
    # 25 dev items: 1 / sqrt(25) = 0.2; 4,000 would tell 0.016, and 0.05 is asked at least.
    assert settings.margin(items=50, dev_share=0.5) == 0.2
    assert settings.margin(items=8000, dev_share=0.5) == 0.05


def test_mixes_by_hand() -> None:
    assert settings.mix({"mine": 500}, None, None) == (500, {"mine": 1.0})
    assert settings.mix({"mine": 5000}, None, None) == (2000, {"mine": 1.0})
    assert settings.mix({"mine": 5000}, None, 300) == (300, {"mine": 1.0})
    # General data get 0.3 where there are plenty; then 700 of the domain's pairs allow 1,000 in all.
    assert settings.mix({"mine": 700, "general": 9000}, "general", None) == (1000, {"mine": 0.7, "general": 0.3})
    # Where there are few they get their part, a tenth at least: 90 of them allow 900.
    assert settings.mix({"mine": 910, "general": 90}, "general", None) == (900, {"mine": 0.9, "general": 0.1})
    pairs, shares = settings.mix({"a": 600, "b": 300, "general": 900}, "general", None)
    assert shares == {"a": 0.47, "b": 0.23, "general": 0.3} and pairs == int(600 / 0.47)
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-9)


def test_lengths_by_hand() -> None:
    """A prompt of 300 bytes at 3 bytes a token with 32 for the template: 132 -> 256; 90 of answer and 8: 38 -> 128."""
    pair = Pair((Message("user", "p" * 300),), "c" * 90, "r" * 60, "d", "s", "g")
    assert settings.lengths([pair], 3.0, None, None) == (384, 256)
    assert settings.lengths([pair], 3.0, None, positions=256) == (256, 192)
    assert settings.lengths([pair], 3.0, answer_tokens=256, positions=None) == (768, 256)


def test_sizes_in_names() -> None:
    assert size_in("Qwen/Qwen3-1.7B") == 1_700_000_000
    assert size_in("HuggingFaceTB/SmolLM2-135M-Instruct") == 135_000_000
    assert size_in("org/llama3") is None


def test_text_is_read_back_as_it_was_meant() -> None:
    texts = [
        "plain",
        "a b",
        "true",
        "12",
        "null",
        "~",
        "x: y",
        "# no",
        "it's",
        'q"uote',
        "C:\\data",
        "- a",
        "ü.csv",
    ]
    assert [plain(parse_yaml(scalar(text), "here")) for text in texts] == texts
    for bad in ("a\nb", "${HOME}/x", "1e3"):
        with pytest.raises(InputError, match="give it another name"):
            scalar(bad)
    keys = [
        Key("a", [Key("b:c", [1.5, "x y"], "long " * 30), Key("d", {"e": 1e-5})], "block"),
        Key("f", Entries([[Key("g", True, "much too long for its line " * 5), Key("h", 2)]])),
    ]
    text = written(["Question?"], keys)
    assert text.startswith("# Question?\n")
    assert plain(parse_yaml(text, "here")) == values(keys)
    assert values(keys)["f"] == [{"g": True, "h": 2}]
    assert max(map(len, text.splitlines())) <= 120


def commented(text: str) -> bool:
    """Whether every line has a comment, beside it or above it."""
    lines = [line for line in text.splitlines() if line.strip()]
    return all("#" in line or before.strip().startswith("#") for before, line in itertools.pairwise(lines))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet", "jsonl.gz"])
def test_a_file_becomes_a_recipe_that_loads(suffix: str, tmp_path: Path) -> None:
    data = write(tmp_path / f"my pairs.{suffix}", pairs(100, prompt="question", chosen="good", rejected="bad"))
    made = make_recipe(Answers("pocket", [str(data)], domain="money"), "recipe.yaml", None)
    recipe = parse_recipe(made.text)
    assert made.text.startswith("# Does money improve?\n") and commented(made.text)
    # 0.3 of 100 groups are held out; the other 70 are drawn, three times, 8 at a time.
    assert recipe.sources["money"].hold_out == 0.3
    assert recipe.stages[0].mix.counts == {"money": 70}
    assert (recipe.stages[0].optim.epochs, recipe.stages[0].optim.batch_size) == (3, 8)
    assert list(recipe.evaluation.tasks.chosen()) == ["preference_accuracy:money"]
    assert recipe.stages[0].gate.improve == {"preference_accuracy:money": 0}
    assert made.checked.wrong == [] and made.checked.left == []
    assert "stage tune draws 70 pairs" in made.checked.done
    assert "30 items of preference_accuracy:money" in made.checked.done
    assert any("One domain is measured" in note for note in made.checked.notes)


def test_general_data_reward_and_tasks(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.jsonl", pairs(300))
    general = write(
        tmp_path / "general.jsonl", [{"system": "", **row} for row in pairs(80, prompt="question")][::-1][:40]
    )
    model, reward = make_policy(tmp_path / "model"), make_reward(tmp_path / "reward")
    answers = Answers(
        str(model),
        [str(mine)],
        general=str(general),
        domain="money",
        reward=str(reward),
        tasks=["ifeval"],
        pairs=50,
        quantization="nf4",
    )
    made = make_recipe(answers, "recipe.yaml", "first")
    recipe = parse_recipe(made.text)
    assert (recipe.name, recipe.model.id, recipe.model.quantization) == ("first", str(model), "nf4")
    assert recipe.sources["general"].kind == "orca"
    stage = recipe.stages[0]
    assert stage.mix.pairs == 50 and set(stage.mix.shares or {}) == {"money", "general"}
    assert set(stage.gate.hold) == {"preference_accuracy:general", "ifeval"}
    assert stage.dpo.max_length <= 512  # the positions of the model
    assert made.text.startswith("# Does money improve while general and ifeval hold?")
    assert made.checked.left == ["the items of ifeval (fetched from the hub)"]
    assert "the reward model is one" in made.checked.done
    assert any("asks the reward model" in note for note in made.checked.notes)


def test_answers_of_a_data_set_become_corrupted_pairs(tmp_path: Path) -> None:
    rows = [
        {
            "system": "",
            "user": f"What is the profit of firm {n}?",
            "assistant": f"The profit was {n + 3} million dollars.",
        }
        for n in range(120)
    ]
    data = write(tmp_path / "finance.jsonl", rows)
    recipe = parse_recipe(make_recipe(Answers("pocket", [str(data)]), "r.yaml", None).text)
    spec = recipe.sources["finance"]
    assert (spec.kind, spec.rejected, spec.finance_only) == ("finance_instruct", "corrupted", True)  # type: ignore[union-attr]
    ranked = parse_recipe(make_recipe(Answers("pocket", [str(data)], reward="pocket"), "r.yaml", None).text)
    assert ranked.sources["finance"].rejected == "sampled"  # type: ignore[union-attr]
    assert list(ranked.evaluation.tasks.chosen()) == ["mt_bench", "finance_instruct"]
    assert next(iter(ranked.stages[0].gate.improve)) == "finance_instruct"


def test_prompts_alone_need_a_reward_model(tmp_path: Path) -> None:
    data = str(write(tmp_path / "asked.jsonl", [{"prompt": row["prompt"]} for row in pairs(60)]))
    with pytest.raises(InputError, match="name one with --reward"):
        make_recipe(Answers("pocket", [data]), "r.yaml", None)
    made = make_recipe(Answers("pocket", [data], reward="pocket"), "r.yaml", None)
    recipe = parse_recipe(made.text)
    assert recipe.sources["asked"].kind == "on_policy"
    assert list(recipe.evaluation.tasks.chosen()) == ["mt_bench"]


def test_the_fewest_pairs_that_can_be_judged_by(tmp_path: Path) -> None:
    """Twelve are enough, as the refusal of eleven says."""
    made = make_recipe(Answers("pocket", [str(write(tmp_path / "a.jsonl", pairs(12)))]), "r.yaml", None)
    assert made.checked.wrong == [] and "4 items of preference_accuracy:a" in made.checked.done


def test_prompts_beside_single_answers_can_be_named(tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "completion": "So.", "label": True} for row in pairs(30)]
    data = str(write(tmp_path / "kto.jsonl", rows))
    assert look(data, Answers("pocket", columns={"prompt": "prompt"})).layout.kind == "on_policy"
    both = [{**row, "output": "x", "label": True} for row in pairs(30)]
    assert look(str(write(tmp_path / "both.jsonl", both)), Answers("pocket")).layout.kind == "table"


def test_two_files_of_one_domain(tmp_path: Path) -> None:
    every = pairs(120)
    files = [str(write(tmp_path / name, rows)) for name, rows in (("a.csv", every[:80]), ("b.csv", every[80:]))]
    recipe = parse_recipe(make_recipe(Answers("pocket", files, domain="money"), "r.yaml", None).text)
    assert list(recipe.sources) == ["money", "money-2"]
    assert recipe.stages[0].mix.shares == {"money": 0.67, "money-2": 0.33}


def test_what_is_counted_is_what_the_source_builds(tmp_path: Path) -> None:
    rows = [*pairs(60), {"prompt": "q", "chosen": "", "rejected": "b"}, pairs(1)[0]]
    found = look(str(write(tmp_path / "a.jsonl", rows)), Answers("pocket", domain="money"))
    assert (found.rows, len(found.pairs), found.training + found.held_out) == (62, 60, 60)
    assert found.dropped == {"empty answer": 1, "exact duplicate": 1}
    recipe = parse_recipe(make_recipe(Answers("pocket", [found.id], domain="money"), "r.yaml", None).text)
    assert build("money", recipe.sources["money"]) == Built(
        pairs=build("money", recipe.sources["money"]).pairs, rows=62, dropped={"empty answer": 1}
    )


def test_pairs_that_do_not_fit_are_not_counted_on(tmp_path: Path) -> None:
    """The model has 512 positions; the 12 long answers are dropped, so the recipe asks for the others alone."""
    rows = pairs(60)
    for row in rows[::5]:
        row["chosen"] = " ".join(f"{row['chosen']} {n}" for n in range(60))
    data = str(write(tmp_path / "long.jsonl", rows))
    model = str(make_policy(tmp_path / "model"))
    made = make_recipe(Answers(model, [data], domain="money"), "r.yaml", None)
    recipe = parse_recipe(made.text)
    assert recipe.stages[0].dpo.max_length == 512
    drawn = sum((recipe.stages[0].mix.counts or {}).values())
    assert made.checked.asked == made.checked.drawn == drawn < 42  # 0.7 of 60 groups
    assert not any("asked" in note for note in made.checked.notes)
    asked = make_recipe(Answers(model, [data], domain="money", pairs=42), "r.yaml", None)
    assert parse_recipe(asked.text).stages[0].mix.counts == {"money": 42}
    assert any("asked 42" in note for note in asked.checked.notes)


def refused(tmp_path: Path, *flags: str) -> str:
    """The line that the command prints; it writes nothing."""
    target = tmp_path / "made.yaml"
    result = CliRunner().invoke(app, ["init", str(target), "--yes", *flags])
    assert result.exit_code == 2, result.output
    assert not target.exists()
    line = result.stderr.strip()
    assert line.count("\n") == 0
    return line


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    data = str(write(tmp_path / "odd.csv", [{"asked": "q", "liked": "a", "disliked": "b"}]))
    pocket = ("--model", "pocket")
    assert "name a model with --model" in refused(tmp_path)
    assert "no such folder, and no hub id" in refused(tmp_path, "--model", "./nowhere", "--data", data)
    assert "name your pairs: --data" in refused(tmp_path, "--model", "org/model-1B")
    assert "it has the columns asked, liked, disliked" in refused(tmp_path, *pocket, "--data", data)
    assert "has no column no" in refused(
        tmp_path, *pocket, "--data", data, "--columns", "prompt=no,chosen=a,rejected=b"
    )
    assert "give either `chosen` and `rejected`" in refused(
        tmp_path, *pocket, "--data", data, "--columns", "prompt=asked,chosen=liked"
    )
    one = str(write(tmp_path / "one.jsonl", pairs(1)))
    assert "too few pairs to keep some apart" in refused(tmp_path, *pocket, "--data", one)
    few = str(write(tmp_path / "few.jsonl", pairs(11)))
    # 0.3 of 12 are 4 held out, 2 for gates and 2 for the verdict; of 11 only 3 are.
    assert "11 usable pairs of 11 different prompts; needs at least 12 pairs" in refused(
        tmp_path, *pocket, "--data", few
    )
    alike = str(write(tmp_path / "alike.jsonl", [{**row, "prompt": f"Q{n % 3}"} for n, row in enumerate(pairs(40))]))
    assert "40 usable pairs of 3 different prompts; needs at least 12" in refused(tmp_path, *pocket, "--data", alike)
    labels: tuple[object, ...] = (True, False)
    single = [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": labels[n % 2]}
        for n, row in enumerate(pairs(30))
    ]
    for suffix in ("jsonl", "csv"):  # a table without types holds the same as True and False
        kto = str(write(tmp_path / f"kto.{suffix}", single))
        assert "single answers with a label are no pairs" in refused(
            tmp_path, *pocket, "--data", kto, "--reward", "pocket"
        )
    assert "keys are prompt" in refused(tmp_path, *pocket, "--data", data, "--columns", "question=asked")
    assert "no such file" in refused(tmp_path, *pocket, "--data", "nowhere.jsonl")
    assert "--kind csv: one of" in refused(tmp_path, *pocket, "--data", data, "--kind", "csv")
    assert "--tasks mtbench: one of" in refused(tmp_path, *pocket, "--tasks", "mtbench")
    assert "name one with --reward" in refused(
        tmp_path,
        *pocket,
        "--data",
        data,
        "--columns",
        "prompt=asked,chosen=liked,rejected=disliked",
        "--tasks",
        "mt_bench",
    )
    assert "write TASK=FILE" in refused(tmp_path, *pocket, "--eval-data", "tatqa")
    assert "the embedded world has" in refused(tmp_path, *pocket, "--domain", "law")


def test_named_columns_and_the_end_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("odd.csv"), pairs(50, prompt="asked", chosen="liked", rejected="disliked"))
    Path("recipe.schema.json").write_text("{}")
    command = ["init", "law.yaml", "--model", "pocket", "--data", "odd.csv", "--domain", "law"]
    command += ["--columns", "prompt=asked,chosen=liked,rejected=disliked"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "odd.csv: 50 rows; chosen and rejected answers; 50 clean pairs" in result.stdout
    assert result.stdout.endswith("recipe: law.yaml\n")
    recipe = load_recipe("law.yaml")
    assert recipe.name == "law"
    assert recipe.sources["law"].columns.prompt == "asked"  # type: ignore[union-attr]
    assert "# yaml-language-server: $schema=recipe.schema.json\n" in Path("law.yaml").read_text()
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2 and "--force" in again.stderr
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0


def test_columns_are_parsed() -> None:
    assert parse_columns("prompt=a+b, chosen=c,rejected=d") == {"prompt": ["a", "b"], "chosen": "c", "rejected": "d"}
    require_answers(Answers("pocket"))


def test_the_embedded_world_needs_no_data() -> None:
    made = make_recipe(Answers("pocket"), "recipe.yaml", None)
    recipe = parse_recipe(made.text)
    assert made.text.startswith("# Does finance improve on the embedded model while its other abilities hold?")
    assert made.checked.wrong == made.checked.left == []
    assert "stage tune draws 256 pairs" in made.checked.done
    assert set(recipe.stages[0].gate.domains.values()) == set(recipe.evaluation.tasks.chosen())
    for domain in ("general", "reddit"):
        parse_recipe(make_recipe(Answers("pocket", domain=domain), "recipe.yaml", None).text)


def test_questions_are_asked_again_until_they_can_be_used(tmp_path: Path) -> None:
    data = write(tmp_path / "odd.csv", pairs(50, prompt="asked", chosen="liked", rejected="disliked"))
    said = iter(
        ["nowhere.csv", "", str(data), "asked=prompt", "prompt=asked,chosen=liked,rejected=disliked", "law", "", ""]
    )
    heard: list[str] = []
    shown: list[str] = []

    def ask(question: str, default: str) -> str:
        heard.append(question)
        return next(said) or default

    found = ask_rest(Answers("org/model-1B"), ask, shown.append)
    assert list(said) == [] and len(heard) == 8
    assert found == Answers(
        "org/model-1B",
        (str(data),),
        domain="law",
        columns={"prompt": "asked", "chosen": "liked", "rejected": "disliked"},
    )
    assert any("no such file" in line for line in shown) and any("asked, liked, disliked" in line for line in shown)


REAL = {
    "orca_style_pairs_sample.jsonl.gz": ("orca", 79),
    "hh_rlhf_harmless_base_test_part.jsonl.gz": ("hh", 1507),
    "dpo_en_demo.json": ("table", 294),
    "llmbar.jsonl.gz": ("table", 419),
    "pandalm_human_pairs_part.jsonl.gz": ("table", 449),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str, real_data: Path) -> None:
    kind, count = REAL[name]
    found = look(str(real_data / "preferences" / name), Answers("pocket", domain="mine"))
    assert (found.layout.kind, len(found.pairs), found.whole) == (kind, count, True)


def test_real_recipe(real_data: Path) -> None:
    folder = real_data / "preferences"
    answers = Answers(
        "pocket",
        [str(folder / "llmbar.jsonl.gz")],
        general=str(folder / "orca_style_pairs_sample.jsonl.gz"),
        domain="instructions",
        eval_data={"tatqa": str(real_data / "tatqa" / "tatqa_dataset_dev.json.gz")},
    )
    made = make_recipe(answers, "recipe.yaml", None)
    assert made.checked.wrong == made.checked.left == [] and commented(made.text)
    assert "250 items of tatqa" in made.checked.done


def in_terminal(command: list[str], answers: list[str], folder: Path) -> str:
    """What a command shows that is typed at in a terminal."""
    lead, follow = pty.openpty()
    process = subprocess.Popen(command, stdin=follow, stdout=follow, stderr=follow, cwd=folder, close_fds=True)
    os.close(follow)
    shown = ""
    while True:
        try:
            shown += os.read(lead, 4096).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        if answers and shown.rstrip().endswith(":"):
            os.write(lead, f"{answers.pop(0)}\n".encode())
            shown += "\n"
            time.sleep(0.2)
    assert process.wait() == 0, shown
    os.close(lead)
    return shown


@pytest.mark.slow
def test_in_a_terminal_and_the_run_of_what_was_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "equipoise", "init", "pocket-first.yaml"]
    shown = in_terminal(command, ["pocket", ""], tmp_path)
    assert "Which model?" in shown and "Which pairs?" in shown
    run = [sys.executable, "-m", "equipoise", "run", "pocket-first.yaml"]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    verdict = json.loads((tmp_path / "runs" / "pocket-first" / "verdict.json").read_text())
    assert verdict["finance_instruct"]["verdict"] == "improved" and verdict["kept_stage"] == "1-tune"
