"""Exports: what is written is the model that was evaluated, plain libraries load it, and the card says what it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData, constants

from equipoise import api
from equipoise.commands_export import export_command
from equipoise.exporting import probes
from equipoise.exporting.choice import choose
from equipoise.exporting.failure import ExportFailed
from equipoise.exporting.metadata import licence, metadata
from equipoise.exporting.public import base_name, hub_id, public
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.model.generate import TransformersGenerator
from equipoise.model.load import Loaded, load_policy
from equipoise.recipe import ModelSpec
from equipoise.recipe_file import fingerprint, load_recipe, stored_recipe
from equipoise.records import InputError, Message
from equipoise.run_folder import Run, hashes, read_json, write_json
from experiments import make_experiment
from test_server import _wait_until_healthy
from tiny_hub import TinyHub, tiny_hub

TOKEN = "hf_" + "aBcD" * 8
QUESTION = "What is a bond?"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of somebody: model, data and run lie in it."""
    return tmp_path_factory.mktemp("home") / "alice"


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two stages, both kept; ranks 4 and 2."""
    path = make_experiment(home)
    path.write_text(path.read_text() + f"# {TOKEN}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIPOISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Run(api.run(load_recipe(path), out=home / "runs", text=path.read_text()).run.folder)


@pytest.fixture(scope="module")
def policy(home: Path, run: Run) -> Loaded:
    return load_policy(ModelSpec(id=str(home / "policy")))


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture(scope="module")
def exports(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The run in all three forms."""
    folder = tmp_path_factory.mktemp("exports")
    forms: dict[str, dict[str, Any]] = {"adapter": {}, "adapters": {"separate": True}, "merged": {"merge": True}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(run.folder.parents[1]))
        for form, options in forms.items():
            api.export(run.folder, folder / form, **options)
        yield {form: folder / form for form in forms}


def copied(run: Run, to: Path) -> Run:
    return Run(Path(shutil.copytree(run.folder, to)))


def signed(run: Run) -> Run:
    """The run with the hashes of the files that it has now."""
    write_json(run.folder / "done", {"files": hashes(run.folder)})
    return run


def stack(run: Run) -> list[Path]:
    return [run.folder / "stages" / name / "adapter" for name in ("1-first", "2-second")]


def greedy(policy: Loaded, folders: list[Path], longest: int = 128) -> str:
    """What the base model with adapters answers, as an evaluation would ask it."""
    model = adapters.attach(policy, folders)
    try:
        asked = Loaded(model, policy.tokenizer, "", policy.device)
        generator = TransformersGenerator(asked, identity="", batch_size=1, store=None)
        prompt = (Message("user", QUESTION),)
        return generator.generate([prompt], max_new_tokens=longest, temperature=0.0, seed=0)[0].text
    finally:
        adapters.detach(model)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(3, 60)[None]).logits
    return found


@pytest.mark.parametrize("form", ["adapter", "adapters", "merged"])
def test_the_code_of_the_card_loads_the_model_that_was_evaluated(
    form: str, exports: dict[str, Path], run: Run, policy: Loaded, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain transformers and PEFT: the code uses nothing else, and answers as the run's stack does."""
    card = (exports[form] / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)[0]
    assert "equipoise" not in code
    code = code.replace("path/to/policy", str(home / "policy")).replace("path/to/this/folder", str(exports[form]))
    names: dict[str, Any] = {}
    exec(compile(code, "card", "exec"), names)
    model = adapters.attach(policy, stack(run))
    expected = logits(model)
    adapters.detach(model)
    torch.testing.assert_close(logits(names["model"]), expected, rtol=1e-4, atol=1e-4)
    assert (expected - logits(policy.model)).abs().max() > 0.1
    assert capsys.readouterr().out.strip() == greedy(policy, stack(run))


def test_a_stack_becomes_one_adapter_whose_rank_is_the_sum(exports: dict[str, Path], run: Run) -> None:
    config = read_json(exports["adapter"] / "adapter_config.json")
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (6, 6, "policy")
    record = read_json(exports["adapter"] / "export.json")
    assert record["stages"] == ["1-first", "2-second"] and record["kept"]
    assert 0 < record["check"]["largest"] <= 1e-4 < record["check"]["moved"]
    assert record["check"]["pairs"] == 8
    files = {path.relative_to(exports["adapter"]).as_posix() for path in exports["adapter"].rglob("*")}
    assert files == {*record["files"], "export.json"} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "export.json", "recipe.yaml"
    }  # fmt: skip


def test_separate_adapters_are_the_files_of_the_run(exports: dict[str, Path], run: Run) -> None:
    for folder in stack(run):
        written = exports["adapters"] / folder.parent.name / "adapter_model.safetensors"
        assert written.read_bytes() == (folder / written.name).read_bytes()
    assert read_json(exports["adapters"] / "export.json")["check"]["largest"] == 0.0


def test_a_merged_model_stands_alone(exports: dict[str, Path], home: Path) -> None:
    folder = exports["merged"]
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (home / "policy" / name).read_bytes()
    assert (folder / "generation_config.json").is_file()
    assert not list(folder.glob("adapter*"))
    assert oct((folder / "model.safetensors").stat().st_mode)[-3:] == "644"


@pytest.mark.parametrize("form", ["adapter", "adapters", "merged"])
def test_the_metadata_is_what_the_hub_reads(form: str, exports: dict[str, Path], run: Run) -> None:
    data = ModelCard.load(exports[form] / "README.md").data
    assert data.library_name == ("transformers" if form == "merged" else "peft")
    assert (data.license, data.pipeline_tag) == ("unknown", "text-generation")
    assert {"dpo", "lora", "equipoise"} <= set(data.tags)
    assert data.get("base_model") is None and data.get("datasets") is None  # all of it is local
    rows = read_json(run.folder / "comparison.json")["2-second"]
    results = {(one.task_name, one.metric_type): one for one in data.eval_results}
    assert set(results) == {(name, kind) for name in rows for kind in ("reward", "difference")}
    for name, row in rows.items():
        assert results[name, "reward"].metric_value == pytest.approx(row["after"], abs=1e-6)
        assert results[name, "difference"].metric_value == pytest.approx(row["difference"], abs=1e-6)
        assert row["verdict"] in results[name, "difference"].metric_name
    assert ModelCardData(**data.to_dict()).to_dict() == data.to_dict()


def test_a_base_of_the_hub_gives_its_name_and_licence(run: Run, tmp_path: Path) -> None:
    chosen = choose(run)
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: llama3.2\nlanguage: [en, de]\n---\n# Base\n"
    )
    recipe = json.loads(chosen.recipe.model_dump_json().replace(chosen.recipe.model.id, "meta/Base"))
    recipe["sources"]["finance"]["id"] = "Intel/orca_dpo_pairs"
    object.__setattr__(chosen, "recipe", stored_recipe(recipe))
    for merged, relation in ((False, "adapter"), (True, "finetune")):
        found = metadata(chosen, tmp_path, {}, merged=merged, name="x").to_dict()
        assert (found["base_model"], found["base_model_relation"]) == ("meta/Base", relation)
        assert (found["license"], found["license_name"], found["language"]) == ("other", "llama3.2", ["en", "de"])
        assert found["datasets"] == ["Intel/orca_dpo_pairs"]
    assert licence("Qwen/Qwen3-1.7B", tmp_path / "none") == "apache-2.0"
    assert licence("Qwen/Qwen2.5-3B-Instruct", tmp_path / "none") == "unknown"


def test_the_card_says_what_a_stranger_must_know(exports: dict[str, Path], run: Run) -> None:
    card = (exports["adapter"] / "README.md").read_text()
    rows = read_json(run.folder / "comparison.json")["2-second"]
    for name, row in rows.items():
        line = next(line for line in card.splitlines() if line.startswith(f"| {name.replace('_', chr(92) + '_')} |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[5:] == [str(row["n"]), f"{row['detectable']:.2g}", row["verdict"]]
        shown = [float(number) for cell in cells[1:5] for number in cell.split(" to ")]
        assert shown == pytest.approx([row["before"], row["after"], row["difference"], *row["ci"]], abs=0.051)
    seen = read_json(run.folder / "data" / "ledger.json")["stages"]
    total = sum(stage["sources"].get("general", {}).get("seen", 0) for stage in seen.values())
    assert f"| general | table | local file general.jsonl | not known | 40 | 40 | {total} |" in card
    for said in (
        "1-first | sigmoid | 0.1 | previous | 4 | 16 | 0.01 | 1.5 | 4 |",
        "One training seed (0)",
        "not of people",
        "The licence of the base model is not known",
        fingerprint(choose(run).recipe),
    ):
        assert said in card, said
    assert f"{read_json(exports['adapter'] / 'export.json')['check']['largest']:.2g}" in card


def test_nothing_of_this_machine_is_in_it(exports: dict[str, Path], home: Path) -> None:
    for path in (path for folder in exports.values() for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert str(home).encode() not in data and TOKEN.encode() not in data, path
        assert path.name == "recipe.yaml" or str(home.parent).encode() not in data, path
    assert public(f"/home/someone/x {TOKEN} /root/y".replace("/root", str(home))) == "~/x (token hidden) ~/y"
    assert (hub_id("org/name"), hub_id("data/pairs.jsonl"), hub_id("/a/b"), hub_id("pocket")) == (
        "org/name", None, None, None
    )  # fmt: skip
    assert (base_name("/a/b/c"), base_name("org/name")) == ("c", "org/name")


def test_texts_of_a_run_are_text_in_the_card(run: Run, tmp_path: Path) -> None:
    """A gate's reason that holds markup, a table cell and a line of its own."""
    other = copied(run, tmp_path / "run")
    path = other.folder / "stages" / "1-first" / "gate.json"
    gate = read_json(path)
    write_json(path, {**gate, "reasons": ["a|b <script>x</script>\n# `c` [d](http://e) \u202e \x07"]})
    api.export(signed(other), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "a\\|b &lt;script&gt;x&lt;/script&gt; # \\`c\\` \\[d\\](http://e) ⟨U+202E⟩ ␇" in card


def test_the_recipe_beside_it_is_that_of_the_run(exports: dict[str, Path], run: Run, home: Path) -> None:
    text = (exports["merged"] / "recipe.yaml").read_text()
    assert str(home) not in text and text.startswith("# Does a two-stage experiment")
    path = home / "again.yaml"
    path.write_text(text.replace("~", str(home)))
    assert fingerprint(load_recipe(path)) == fingerprint(choose(run).recipe)


def test_values_of_the_command_line_are_in_the_recipe(run: Run, tmp_path: Path, home: Path) -> None:
    """The recipe as written would make another run: the one beside the export is that of the run."""
    other = copied(run, tmp_path / "other")
    path = other.folder / "recipe.yaml"
    path.write_text(path.read_text().replace("epochs: 1.5", "epochs: 3"))
    api.export(signed(other), tmp_path / "out")
    written = home / "values.yaml"
    written.write_text((tmp_path / "out" / "recipe.yaml").read_text().replace("~", str(home)))
    assert fingerprint(load_recipe(written)) == fingerprint(choose(run).recipe)


def test_an_earlier_stage_alone(run: Run, policy: Loaded, tmp_path: Path) -> None:
    record = api.export(run, tmp_path / "first", stage="first")
    assert (record["stages"], record["kept"]) == (["1-first"], False)
    source = stack(run)[0] / "adapter_model.safetensors"
    assert (tmp_path / "first" / source.name).read_bytes() == source.read_bytes()
    card = (tmp_path / "first" / "README.md").read_text()
    assert "not the stage that the experiment ended with" in card and "2-second" not in card
    assert ModelCard(card).data.eval_results[0].metric_value == pytest.approx(
        read_json(run.folder / "comparison.json")["1-first"]["mt_bench"]["after"], abs=1e-6
    )


def test_adapters_of_several_domains_in_a_stage(run: Run, tmp_path: Path) -> None:
    """A stage's folder may hold one adapter for each domain; all of them belong to the stack."""
    other = copied(run, tmp_path / "run")
    folder = other.folder / "stages" / "2-second" / "adapter"
    for name in ("finance", "general"):
        shutil.copytree(stack(run)[1], folder / name)
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_model.safetensors").unlink()
    assert api.export(signed(other), tmp_path / "one")["check"]["largest"] <= 1e-4
    assert read_json(tmp_path / "one" / "adapter_config.json")["r"] == 4 + 2 + 2
    api.export(other, tmp_path / "separate", separate=True)
    names = {path.name for path in (tmp_path / "separate").iterdir() if path.is_dir()}
    assert names == {"1-first", "2-second-finance", "2-second-general"}


def refused(run: Run) -> Run:
    """The same run as if its gates had refused both stages."""
    verdict = read_json(run.folder / "verdict.json")
    gates = [{**gate, "action": "rollback", "outcome": "fail"} for gate in verdict["gates"]]
    write_json(run.folder / "verdict.json", {**verdict, "kept_stage": "base", "gates": gates})
    for gate in gates:
        write_json(run.folder / "stages" / gate["stage"] / "gate.json", gate)
    return signed(run)


def test_a_run_that_kept_nothing_recommends_its_base_model(run: Run, tmp_path: Path) -> None:
    other = refused(copied(run, tmp_path / "run"))
    with pytest.raises(InputError, match="the base model is what this run recommends"):
        api.export(other, tmp_path / "out")
    api.export(other, tmp_path / "out", stage="2-second")
    assert "**The gate of this experiment refused what is exported here.**" in (tmp_path / "out/README.md").read_text()


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(run: Run, tmp_path: Path, home: Path) -> None:
    other = copied(run, tmp_path / "runs" / "other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    weights = other.folder / "stages" / "1-first" / "adapter" / "adapter_model.safetensors"
    template = home / "policy" / "chat_template.jinja"
    before = {path.name for path in tmp_path.iterdir()}

    def refuses(said: str, to: str = "out", **options: Any) -> None:
        with pytest.raises(InputError, match=said) as error:
            api.export(other, tmp_path / to, **options)
        assert "\n" not in str(error.value)
        assert {path.name for path in tmp_path.iterdir()} == before

    refuses("exists and is not an empty folder", "full")
    refuses("exists and is not an empty folder", "full/file")
    refuses("--stage third: .* no such trained stage; there are 1-first, 2-second", stage="third")
    refuses("give one of them", merge=True, separate=True)
    refuses("HF_HUB_OFFLINE is set", push="me/tiny")
    template.write_text(template.read_text() + " ")
    refuses("not the model that .* trained")
    template.write_text(template.read_text()[:-1])
    (home / "policy").rename(home / "elsewhere")
    refuses("model.id: .*: no such folder")
    (home / "elsewhere").rename(home / "policy")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    refuses(r"1-first/adapter/adapter_model.safetensors: missing or changed since the run ended")
    (other.folder / "done").unlink()
    refuses("not finished; continue it with")


def test_an_export_that_is_another_model_is_not_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this precision the last digits differ, so nothing passes a tolerance of 0."""
    monkeypatch.setitem(probes.TOLERANCE, "float32", 0.0)
    for options in ((True, False), (False, False)):
        assert export_command(run.folder, tmp_path / "x" / "out", *options, False, None, None, True) == 1
        said = capsys.readouterr()
        assert re.search(
            r"not the model that was evaluated, nothing is written: .* differ by at most \S+ nats", said.err
        )
        assert said.out == "" and not list((tmp_path / "x").iterdir())


def test_the_check_by_hand() -> None:
    pair = EncodedPair("a", "s", "d", (1, 2), (3, 4, 5), (6,), 0)
    done = probes.check([pair], [-2.0, -1.0], [-1.0, -1.0], [-1.00005, -0.99999], "float32")
    assert (done.largest, done.mean) == pytest.approx((5e-5, 3e-5))
    assert (done.moved, done.tokens, done.passed) == (1.0, 4, True)
    assert not probes.check([pair], [-2.0, -1.0], [-1.0, -1.0], [-1.0, -1.01], "float32").passed
    assert not probes.check([pair], [0.0, 0.0], [-1.0, -1.0], [float("nan"), -1.0], "float32").passed
    assert "says little" in probes.check([pair], [-1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0], "float32").words()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyHub]:
    with tiny_hub(TOKEN) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_pushing_makes_a_private_repository_with_every_file(
    run: Run, hub: TinyHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_command(run.folder, tmp_path / "out", False, False, False, "me/tiny", None, False) == 0
    assert len(hub.made) == 1 and hub.made[0]["name"] == "tiny"
    assert hub.made[0].get("private") or hub.made[0].get("visibility") == "private"
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {name: data for name, data in hub.files.items() if name != ".gitattributes"} == written
    assert hub.cards == [written["README.md"].decode()]  # the hub is asked about the metadata before it is committed
    assert b'place = "me/tiny"' in written["README.md"]
    assert f"pushed: {hub.url}/me/tiny" in capsys.readouterr().out


def test_a_hub_that_refuses(run: Run, hub: TinyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuses_commits = True
    with pytest.raises(ExportFailed, match=r"out is written, but me/tiny did not get it: .*403.*hf upload me/tiny"):
        api.export(run, tmp_path / "out", push="me/tiny")
    assert (tmp_path / "out" / "README.md").is_file() and not hub.files
    with pytest.raises(InputError, match="Repo id must"):
        api.export(run, tmp_path / "name", push="a/b/c")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(InputError, match="does not answer, or refuses the token"):
        api.export(run, tmp_path / "other", push="me/tiny")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no token for the hub; set HF_TOKEN or log in"):
        api.export(run, tmp_path / "other", push="me/tiny")
    assert not (tmp_path / "other").exists()


def test_gguf_of_a_run(run: Run, exports: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    record = api.export(run, tmp_path / "out", gguf=True)
    assert "model.gguf" in record["files"] and record["form"] == "merged"
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", gguf_file="model.gguf", config=config, dtype=torch.float32
    )
    merged = transformers.AutoModelForCausalLM.from_pretrained(exports["merged"], dtype=torch.float32)
    assert torch.equal(logits(model), logits(merged))
    assert "llama.cpp itself was not run" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_transformers_serve_answers_as_the_run_does(exports: dict[str, Path], run: Run, policy: Loaded) -> None:
    openai = pytest.importorskip("openai")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(exports["merged"])]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [*command, *options], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        reply = client.chat.completions.create(
            model=str(exports["merged"]),
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=40,
            temperature=0.0,
        )
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert reply.choices[0].message.content.strip() == greedy(policy, stack(run), 40)
