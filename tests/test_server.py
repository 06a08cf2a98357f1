"""The client of chat servers: over real sockets, with a server that misbehaves and with one that serves a model."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from chat_server import Reply, chat_server, says
from equipoise.model.generate import Answer, TransformersGenerator
from equipoise.model.load import load_policy
from equipoise.model.server import GIVE_UP, ServerGenerator
from equipoise.pocket import model_dir
from equipoise.recipe_evaluation import Server
from equipoise.recipe_parts import ModelSpec
from equipoise.records import InputError, Message
from equipoise.store import Store

openai = pytest.importorskip("openai")
QUESTIONS = ["What is a bond?", "What is a loan?", "Say it in fewer words.", "Who pays?", "When?", "Why?", "How?"]
PROMPTS = [(Message("user", question),) for question in QUESTIONS]


def spec(url: str, **values: Any) -> Server:
    return Server(url=url, **{"model": "tiny", "timeout": 5.0, "retries": 3, **values})


def ask(url: str, prompts: Any = PROMPTS, *, store: Store | None = None, **values: Any) -> list[Answer]:
    options = {name: values.pop(name) for name in ("temperature", "seed") if name in values}
    generator = ServerGenerator(spec(url, **values), store=store)
    return generator.generate(prompts, **{"max_new_tokens": 9, "temperature": 0.0, "seed": 0, **options})


def echo(body: dict[str, Any]) -> Reply:
    return says(f"to {body['messages'][-1]['content']}")


def with_question(body: dict[str, Any], question: str, other: Callable[[], Reply]) -> Reply:
    return other() if body["messages"][-1]["content"] == question else echo(body)


def test_answers_in_order_and_what_is_sent() -> None:
    with chat_server(echo) as server:
        seen: list[tuple[int, int]] = []
        generator = ServerGenerator(spec(server.url), store=None)
        prompts = [*PROMPTS, PROMPTS[0], (Message("system", "Be brief."), Message("user", "\ud83d?"))]
        answers = generator.generate(
            prompts, max_new_tokens=9, temperature=0.0, seed=4, progress=lambda *step: seen.append(step)
        )
    assert answers == [Answer(f"to {text}", 3, False) for text in [*QUESTIONS, QUESTIONS[0], "??"]]
    assert seen == [(done, 8) for done in range(1, 9)]  # equal prompts are sent once
    first = server.asked[0]
    assert first == {
        "model": "tiny",
        "messages": [{"role": "user", "content": QUESTIONS[0]}],
        "max_tokens": 9,
        "temperature": 0.0,
    }


def test_several_at_a_time_but_no_more_than_asked_for() -> None:
    def slow(body: dict[str, Any]) -> Reply:
        return Reply(echo(body).body, delay=0.05)

    with chat_server(slow) as server:
        ask(server.url, concurrency=3)
    assert server.most_together == 3


def test_sampling_has_a_seed_for_each_prompt() -> None:
    with chat_server(echo) as server:
        ask(server.url, temperature=0.7, seed=1, concurrency=1)
        ask(server.url, temperature=0.7, seed=2, concurrency=1)
    seeds = [body["seed"] for body in server.asked]
    assert len(set(seeds)) == 2 * len(PROMPTS)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert {(body["temperature"], body["top_p"]) for body in server.asked} == {(0.7, 1.0)}


def test_what_the_reply_says_of_the_answer() -> None:
    replies = {
        QUESTIONS[0]: says("Once upon a", "length"),
        QUESTIONS[1]: says(""),
        QUESTIONS[2]: says(None, "length", reasoning_content="Hmm"),
        QUESTIONS[3]: says(None, refusal="I cannot help with that."),
        QUESTIONS[4]: says("cut \ud83d off"),
        QUESTIONS[5]: says("fine", None),
    }
    with chat_server(lambda body: replies.get(body["messages"][-1]["content"], says("x"))) as server:
        answers = ask(server.url)
    assert answers[:6] == [
        Answer("Once upon a", 3, True),
        Answer("", 3, False),  # an empty answer is an answer
        Answer("", 3, True),
        Answer("I cannot help with that.", 3, False),
        Answer("cut ? off", 3, False),
        Answer("fine", 3, False),
    ]


NOT_JSON = Reply(b'{"choices": [', content_type="application/json")
BROKEN = {
    "prose": (Reply(b"<html>Welcome</html>", content_type="text/html"), "server: no answer in the reply"),
    "invalid JSON": (NOT_JSON, "server: not JSON: "),
    "JSON of another kind": (Reply(["hello"]), "server: "),
    "nothing": (Reply(b""), "server: "),
    "no choices": (Reply({"choices": []}), "server: no answer in the reply"),
    "no message": (Reply({"choices": [{}]}), "server: no answer in the reply"),
    "parts": (says([{"type": "text", "text": "x"}]), "server: the answer is no text"),  # type: ignore[arg-type]
    "held back": (says("", "content_filter"), "server: the reply ended with 'content_filter' instead of an answer"),
    "a tool": (says(None, "tool_calls"), "server: the reply ended with 'tool_calls'"),
    "500": (Reply({"error": {"message": "out of memory"}}, status=500), "server: HTTP 500: out of memory"),
    "too long": (Reply({"detail": "none of it fits\nhere"}, status=400), "server: HTTP 400: none of it fits"),
    "too many": (Reply({"error": "slow down"}, status=429), "server: HTTP 429: slow down"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_request_that_fails_is_refused_and_asked_again_next_time(kind: str, tmp_path: Path) -> None:
    reply, reason = BROKEN[kind]
    store = Store(tmp_path / "answers")
    with chat_server(lambda body: with_question(body, QUESTIONS[2], lambda: reply)) as server:
        answers = ask(server.url, store=store)
        good = [answer for answer in answers if answer.refused is None]
        assert [answer.text for answer in good] == [f"to {text}" for text in QUESTIONS if text != QUESTIONS[2]]
        assert answers[2].refused is not None and answers[2].refused.startswith(reason)
        assert answers[2].text == "" and "\n" not in answers[2].refused
        again = len(server.asked)
        assert ask(server.url, store=store)[2].refused is not None  # and alone it does not stop the evaluation
        assert {body["messages"][-1]["content"] for body in server.asked[again:]} == {QUESTIONS[2]}


def test_500_three_times_and_then_fine() -> None:
    tries = itertools.count()

    def shaky(body: dict[str, Any]) -> Reply:
        return Reply({"detail": "busy"}, status=500) if next(tries) < 3 else echo(body)

    with chat_server(shaky) as server:
        assert ask(server.url, PROMPTS[:1])[0].text == f"to {QUESTIONS[0]}"
    assert len(server.asked) == 4


def test_too_slow() -> None:
    def slow(body: dict[str, Any]) -> Reply:
        return with_question(body, QUESTIONS[1], lambda: Reply({}, delay=1.5))

    with chat_server(slow) as server:
        answers = ask(server.url, PROMPTS[:3], timeout=1.0, retries=0)
    assert [answer.refused for answer in answers] == [None, "server: no answer within 1 s", None]


def test_a_server_out_of_reach_stops_at_the_first_request() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(InputError, match=r"^evaluation\.generation\.server: http://127.*cannot be reached \(.*refused"):
        ask(url, retries=0)


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, r"refuses the key \(HTTP 401\); set \$OTHER_KEY"), (403, "refuses the key"), (404, "knows no model 'tiny'")],
)
def test_a_server_that_refuses_stops_at_the_first_request(
    status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "secret-1234")
    refusal = Reply({"error": {"message": "no: secret-1234"}}, status=status)
    with chat_server(lambda body: refusal) as server, pytest.raises(InputError, match=message) as stopped:
        ask(server.url, api_key_env="OTHER_KEY")
    assert len(server.asked) == 1
    assert server.keys == ["Bearer secret-1234"]
    assert "secret" not in str(stopped.value) and "\n" not in str(stopped.value)


def test_the_key_is_not_repeated_from_what_a_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-1234")
    with chat_server(lambda body: Reply({"error": "key secret-1234 is over its limit"}, status=429)) as server:
        answers = ask(server.url, PROMPTS[:1], retries=0)
    assert answers[0].refused is not None and "***" in answers[0].refused and "secret" not in answers[0].refused


def test_a_key_is_needed_elsewhere_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with chat_server(echo) as server:
        assert ask(server.url, PROMPTS[:1])[0].refused is None
    assert server.keys == ["Bearer none"]
    with pytest.raises(InputError, match=r"server\.api_key_env: \$OPENAI_API_KEY is not set; put the key of x\.org"):
        ServerGenerator(spec("https://x.org/v1"), store=None)


def test_without_the_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'equipoise\[openai\]'"):
        ServerGenerator(spec("http://localhost:1/v1"), store=None)


def test_a_server_that_fails_from_the_beginning_is_given_up() -> None:
    reply = Reply({"detail": "Server is pinned to 'other'"}, status=400)
    message = rf"{GIVE_UP} requests failed, the last one with: HTTP 400.*pinned"
    with chat_server(lambda body: reply) as server, pytest.raises(InputError, match=message):
        ask(server.url, concurrency=1)
    assert len(server.asked) == GIVE_UP


def test_a_server_that_goes_away_stops_the_evaluation_and_the_next_one_goes_on(tmp_path: Path) -> None:
    prompts = [(Message("user", f"Question {number}"),) for number in range(60)]
    store, answered = Store(tmp_path / "answers"), itertools.count()

    def dying(body: dict[str, Any]) -> Reply:
        return echo(body) if next(answered) < 4 else Reply({"detail": "no longer"}, status=401, delay=0.02)

    with chat_server(dying) as server:
        with pytest.raises(InputError, match="refuses the key") as stopped:
            ask(server.url, prompts, store=store, concurrency=1)
        assert stopped.tb is not None  # which holds all frames: requests that wait are called off all the same
        told = 0
        while told < len(server.asked):
            told = len(server.asked)
            time.sleep(0.2)
        assert 5 <= told < 60
        answered = itertools.count(-100)
        answers = ask(server.url, prompts, store=store)
        assert [answer.text for answer in answers] == [f"to Question {number}" for number in range(60)]
        assert len(server.asked) == told + 56
        ask(server.url, prompts, store=store)
        assert len(server.asked) == told + 56


def test_a_server_that_hangs_up_again_and_again_is_given_up() -> None:
    prompts = [(Message("user", f"Question {number}"),) for number in range(20)]
    numbers = itertools.count()

    def dropping(body: dict[str, Any]) -> Reply:
        number = next(numbers)
        return Reply(b"", status=0, delay=0.02) if number in (1, 2) or number >= 6 else echo(body)

    with chat_server(dropping) as server, pytest.raises(InputError, match=r"5 requests failed.*cannot be reached"):
        ask(server.url, prompts, retries=0, concurrency=1)
    assert 11 <= len(server.asked) < 20  # two in a row did not matter


def test_kept_answers_belong_to_address_model_and_settings(tmp_path: Path) -> None:
    store = Store(tmp_path / "answers")
    with chat_server(echo) as server, chat_server(echo) as other:
        ask(server.url, store=store)
        ask(server.url, store=store, timeout=9.0, concurrency=1, seed=3)  # no part of the answer at temperature 0
        assert len(server.asked) == 7
        ask(server.url, store=store, model="tiny-2")
        ask(server.url, store=store, temperature=0.5)
        assert len(server.asked) == 21
        ask(other.url, store=store)
        assert len(other.asked) == 7


def test_a_server_that_wants_another_name_for_the_limit() -> None:
    def modern(body: dict[str, Any]) -> Reply:
        if "max_tokens" in body:
            text = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return Reply({"error": {"message": text}}, status=400)
        return echo(body)

    with chat_server(modern) as server:
        assert all(answer.refused is None for answer in ask(server.url))
    assert len(server.asked) == 8
    assert server.asked[-1]["max_completion_tokens"] == 9


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The embedded model behind `transformers serve`, on a free port of loopback."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(model_dir())]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [*command, *options], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(address, timeout=5) as reply:
                assert json.loads(reply.read())["status"] == "ok"
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    raise AssertionError("the server did not start within a minute")


def test_a_served_model_answers_as_it_does_in_this_process(served: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    prompts: list[tuple[Message, ...]] = [
        (Message("user", "Should I pay off my loans first or put the money into an index fund?"),),
        (Message("user", "What is a bond?"),),
        (Message("system", "You are a helpful assistant."), Message("user", "Write a short letter to the bank.")),
        (Message("user", "Who?"), Message("assistant", "The bank."), Message("user", "Say it in more words.")),
    ]
    here = TransformersGenerator(load_policy(ModelSpec(id="pocket")), identity="pocket", batch_size=1, store=None)
    there = ServerGenerator(Server(url=served, model=str(model_dir()), timeout=60.0), store=Store(tmp_path / "answers"))
    for longest in (6, 40):
        expected = here.generate(prompts, max_new_tokens=longest, temperature=0.0, seed=0)
        assert there.generate(prompts, max_new_tokens=longest, temperature=0.0, seed=0) == expected
    assert {answer.cut_off for answer in here.generate(prompts, max_new_tokens=6, temperature=0.0, seed=0)} == {True}
    with pytest.raises(InputError, match="Server is pinned to"):
        stranger = ServerGenerator(Server(url=served, model="gpt"), store=None)
        stranger.generate(PROMPTS, max_new_tokens=6, temperature=0.0, seed=0)
