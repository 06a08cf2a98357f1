"""The web app: what it lists and shows, whom it refuses, and what it makes of broken folders."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from equipoise import cli, commands_live
from equipoise.records import InputError
from equipoise.run_folder import write_json
from equipoise.ui.app import create_app
from equipoise.ui.guard import refuse
from equipoise.ui.stacks import kept_point, stack_of, tuned_points
from equipoise.ui.talk import Talk, read_question
from live_runs import HOSTILE, ended, failing, going, mark
from study_runs import spread, write_run

HOME = "http://127.0.0.1:8000"
JSON = {"origin": HOME, "content-type": "application/json"}
ASK: dict[str, Any] = {"chats": {"base": [{"role": "user", "content": "hi"}]}, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two comparable finished runs in a study, one that was refused, one in the middle, and broken ones."""
    root = tmp_path_factory.mktemp("ui") / "runs"
    write_run(root / "study" / "better", {"tatqa": spread(0.5), "mt_bench": spread(1.0)}, name="better")
    write_run(root / "study" / "same", {"tatqa": spread(0.0), "mt_bench": spread(0.0)}, name="same", rate="2e-5")
    ended(root / "refused", question=HOSTILE)
    going(root / "going")
    mark(root / "going")
    for name, content in {"half": '{"name": "ha', "list": "[]", "odd": '{"stages": 3}'}.items():
        (root / name).mkdir()
        (root / name / "recipe.json").write_text(content)
    write_run(root / HOSTILE[:40].replace("/", " "), {"tatqa": spread(0.0), "mt_bench": spread(0.0)}, name="odd-name")
    failing(root / "failed")
    edited = ended(root / "edited")
    write_json(edited / "done", {"files": {"verdict.json": "0" * 64}})
    (ended(root / "lost") / "recipe.json").unlink()
    (root / "no-run").mkdir()
    (root.parent / "secret").mkdir()
    (root.parent / "secret" / "recipe.json").write_text('{"name": "outside"}')
    return root


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[TestClient]:
    with TestClient(create_app(runs), base_url=HOME) as started:
        yield started


def test_the_list(client: TestClient) -> None:
    entries = {entry["id"]: entry for entry in client.get("/api/runs").json()}
    assert {"study/better", "study/same", "refused", "going", "half", "list", "odd"} <= set(entries)
    assert not {"no-run", "study", "secret"} & set(entries)
    assert entries["refused"]["verdicts"] == {"tatqa": "worse"} and entries["refused"]["kept"] == "base"
    assert entries["refused"]["took_s"] == 38.0 and entries["going"]["state"] == "running"
    assert all("recipe.json cannot be read" in entries[name]["notes"][0] for name in ("half", "list", "odd"))
    assert entries["failed"]["state"] == "failed" and "failed: step 4" in entries["failed"]["notes"][0]
    assert "recipe.json is missing" in entries["lost"]["notes"][0] and entries["lost"]["kept"] == "base"
    assert entries["edited"]["changed"] and not entries["refused"]["changed"]
    page = client.get("/").text
    assert 'href="/run/study/better"' in page and "Does a run show where it is?" in page
    assert "<script>alert" not in page and "\u202e" not in page and "&lt;script&gt;" in page


def test_every_page_of_every_run_answers(client: TestClient) -> None:
    """A broken run has pages that say what is missing; its report may say in one line why there is none."""
    for entry in client.get("/api/runs").json():
        for kind in ("run", "live", "talk"):
            answer = client.get(f"/{kind}/{entry['id']}")
            assert answer.status_code == 200, (kind, entry["id"], answer.text)
            assert "<script>alert" not in answer.text and "Traceback" not in answer.text
        report = client.get(f"/report/{entry['id']}")
        assert report.status_code == (400 if entry["id"] in ("half", "list", "odd") else 200), entry["id"]


def test_pages_say_what_failed_was_edited_or_is_lost(client: TestClient) -> None:
    assert client.get("/").text.count("changed since the run ended</span>") == 1
    assert "Changed since the run ended." in client.get("/run/edited").text
    assert "Changed since the run ended." not in client.get("/run/refused").text
    failed = client.get("/run/failed").text
    assert "The run failed: step 4: the loss is NaN" in failed and 'data-going=""' in failed
    assert "recipe.json is missing" in client.get("/run/lost").text
    assert "0.500 (2)" in client.get("/run/going").text


def test_the_page_of_a_run_follows_it(runs: Path, client: TestClient) -> None:
    folder = runs / "follows"
    going(folder)
    mark(folder)
    first = client.get("/live/follows")
    assert "first: training, step 3 of 4" in first.text and 'data-going="yes"' in first.text
    assert "<html" not in first.text
    shutil.rmtree(folder)
    ended(folder)
    last = client.get("/live/follows")
    assert "a gate refused a stage" in last.text and 'data-going=""' in last.text
    again = client.get("/live/follows", headers={"if-none-match": last.headers["etag"]})
    assert again.status_code == 304 and again.text == ""
    shutil.rmtree(folder)
    assert client.get("/live/follows").status_code == 404


def test_comparison(client: TestClient) -> None:
    """`better` gains 1.0 in MT-Bench where `same` gains nothing: 20 of 40 items move by +2, the others by 0."""
    page = client.get("/compare", params={"run": ["study/same", "study/better"]}).text
    row = page[page.index("mt_bench") : page.index("mt_bench") + 400]
    assert "higher" in row and "+1.000" in row
    assert "Each against its own base" in page and "front" in page and "one seed only" in page
    for chosen, said in (
        (["study/same"], "choose 2 to"),
        (["study/same", "going"], "not finished"),
        (["study/same", "../secret"], "no such run"),
    ):
        answer = client.get("/compare", params={"run": chosen})
        assert answer.status_code in (400, 404) and said in answer.text


@pytest.mark.parametrize(
    "path", ["/run/../secret", "/run/%2e%2e/secret", "/run/..%2Fsecret", "/report//etc/passwd", "/talk/no-run", "/nope"]
)
def test_only_listed_runs_can_be_addressed(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and "outside" not in answer.text
    assert client.get("/static/../app.py").status_code == 404


def test_whom_it_refuses(client: TestClient) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "0.0.0.0:8000"):
        assert client.get("/api/runs", headers={"host": host}).status_code == 403
    assert client.get("/", headers={"host": "localhost:8000"}).status_code == 200
    for headers in (
        {**JSON, "origin": "http://evil.example"},
        {"content-type": "application/json"},
        {**JSON, "origin": "null"},
        {**JSON, "content-type": "text/plain"},
        {**JSON, "sec-fetch-site": "cross-site"},
    ):
        assert client.post("/stop", content="{}", headers=headers).status_code == 403
    assert client.post("/stop", content="{}", headers=JSON).status_code == 200
    assert refuse("POST", {"host": "localhost:1", "origin": "http://127.0.0.1:1"}) is not None


def test_policies(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff" and "style=" not in page.text
    report = client.get("/report/refused")
    assert report.headers["content-security-policy"].startswith("sandbox")
    assert "same-origin" not in report.headers["content-security-policy"]
    refused = client.get("/", headers={"host": "evil.example"})
    assert refused.headers["content-security-policy"] == policy


def test_reports_are_made_but_never_written(runs: Path, client: TestClient) -> None:
    assert not (runs / "refused" / "report.html").exists()
    assert "going" in client.get("/report/going").text
    assert not (runs / "refused" / "report.html").exists() and not (runs / "going" / "report.html").exists()
    (runs / "refused" / "report.html").write_text("as the run wrote it")
    assert client.get("/report/refused").text == "as the run wrote it"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chats": {}}, "the turns of base"),
        ({"chats": {"other": []}}, "the turns of base"),
        ({"chats": {"base": []}}, "the last turn"),
        ({"chats": {"base": [{"role": "assistant", "content": "hi"}]}}, "by turns"),
        ({"chats": {"base": [{"role": "user", "content": 3}]}}, "by turns"),
        ({"chats": {"base": [{"role": "user", "content": "x" * 100_001}]}}, "longer than 100,000"),
        ({"temperature": "hot"}, "temperature: a number from 0 to 5"),
        ({"max_new_tokens": 10**9}, "max_new_tokens: a number from 1 to 2048"),
    ],
)
def test_questions_that_make_no_sense(client: TestClient, change: dict[str, Any], said: str) -> None:
    answer = client.post("/talk/refused", json={**ASK, **change}, headers=JSON)
    assert answer.status_code == 400 and said in answer.json()["error"]


def test_requests_that_are_no_question(client: TestClient) -> None:
    for body, said in (("[]", "JSON object"), ("{", "JSON object"), ("x" * (2 << 20), "longer than")):
        answer = client.post("/talk/refused", content=body, headers=JSON)
        assert answer.status_code == 400 and said in answer.json()["error"]
    assert client.post("/talk/nobody", json=ASK, headers=JSON).status_code == 404


def test_a_model_that_cannot_be_loaded_is_one_line(runs: Path) -> None:
    """The process of the models says why and stays; it ends when nobody can ask it any more, however the app ended."""

    async def talk() -> tuple[list[dict[str, Any]], int | None]:
        one = Talk()
        news = [line async for line in one.answer(runs / "refused", ASK)]
        process = one._process
        assert process is not None and process.returncode is None
        assert process.stdin is not None
        process.stdin.close()
        code = await asyncio.wait_for(process.wait(), 20)
        await one.close()
        return news, code

    news, code = asyncio.run(talk())
    assert news[0] == {"note": "loading the model"} and "local/model" in news[-1]["error"]
    assert "\n" not in news[-1]["error"] and code == 0


def test_stacks(tmp_path: Path) -> None:
    """The third stage was trained on the first: the second was refused. A name from elsewhere is no stage."""
    starts: dict[str, list[str]] = {"1-a": [], "2-b": ["1-a"], "10-c": ["1-a"]}
    for point, stack in starts.items():
        write_json(tmp_path / "stages" / point / "start.json", {"stack": stack})
        write_json(tmp_path / "stages" / point / "adapter" / "adapter_config.json", {})
    for point, action in (("1-a", "keep"), ("2-b", "rollback")):
        gate = {"outcome": "pass" if action == "keep" else "fail", "action": action, "flagged": False, "reasons": []}
        write_json(tmp_path / "stages" / point / "gate.json", gate)
    assert kept_point(tmp_path) == "1-a"
    said = [(tuned.point, tuned.said) for tuned in tuned_points(tmp_path)]
    assert said == [("1-a", "kept at the end"), ("10-c", "no gate yet"), ("2-b", "gate: rollback")]
    assert stack_of(tmp_path, "10-c") == [tmp_path / "stages" / point / "adapter" for point in ("1-a", "10-c")]
    write_json(tmp_path / "stages" / "10-c" / "start.json", {"stack": ["../../secret"]})
    for point in ("10-c", "nothing", ".."):
        with pytest.raises(InputError):
            stack_of(tmp_path, point)


def test_questions_name_the_run_by_its_real_folder(tmp_path: Path) -> None:
    assert read_question(1, tmp_path, ASK).folder == str(tmp_path.resolve())
    assert read_question(1, tmp_path, {**ASK, "temperature": 0.5}).temperature == 0.5


def test_the_command_line(tmp_path: Path) -> None:
    for arguments, said in (
        ([str(tmp_path / "absent")], "no such folder"),
        ([str(tmp_path), "--host", "0.0.0.0"], "listens on 127.0.0.1 alone"),
    ):
        result = CliRunner().invoke(cli.app, ["ui", *arguments])
        assert result.exit_code == 2 and said in result.output and result.output.count("\n") == 1


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(cli.app, ["ui", str(tmp_path), "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2 and "choose another" in result.output


def test_without_its_packages_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_live, "find_spec", lambda name: None if name == "uvicorn" else True)
    result = CliRunner().invoke(cli.app, ["ui", str(tmp_path)])
    assert result.exit_code == 2 and "pip install 'equipoise[ui]'" in result.output
    assert result.output.count("\n") == 1
