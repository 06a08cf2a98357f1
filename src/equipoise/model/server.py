"""Answers of a server that speaks OpenAI's chat protocol: asked for several at a time, kept one by one.

What fails tells two things apart. Where the server itself is the trouble (out of reach, it refuses the key, it does
not know the model, the first requests all fail) the evaluation stops with one line, at the first request and before
anything expensive; what was answered is kept, so that the same command goes on from there. Where a single request
fails after all its tries, its answer is *refused* with the reason: unscored, never zero, asked again next time.

Kept answers belong to the address and the name of the model. Nobody sees from outside which weights stand behind a
name: give another name, or use another store (`EQUIPOISE_CACHE`), where they change. A server may answer the same
request differently at temperature 0 (rounding depends on what else it computes): the answer that came first is kept,
and only repeated measuring with stores of their own shows how much that matters.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from equipoise.model.generate import Answer, Progress
from equipoise.recipe_evaluation import Server
from equipoise.records import InputError, Message, chat, content_id
from equipoise.store import Store

VERSION = 1
"""Raise it when the same request comes to mean another answer: kept answers are then no longer served."""
KIND = "server-answers"
GIVE_UP = 5
"""So many failures at the beginning, or so many times out of reach in a row, and the server is the trouble."""
LONGEST_REASON = 200
SECRET = 8
"""Keys of fewer characters are placeholders, as `none`, and may well be words of a message."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a server is asked. `seed` counts above temperature 0 only."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0

    @property
    def key(self) -> str:
        """Content id of all that the answer depends on beside the server."""
        seed = self.seed if self.temperature > 0 else 0
        return content_id([chat(self.messages), self.max_tokens, self.temperature, seed])


@dataclass(frozen=True, slots=True)
class _Failure:
    """A request without an answer. `fatal`: the next one would fail as well; `away`: nobody took the request."""

    reason: str
    fatal: bool = False
    away: bool = False


class Chats:
    """A server and the answers that it gave.

    Args:
        server: address, model, key, patience.
        store: where answers are kept; None keeps nothing.
        where: the part of the recipe that names the server, for messages.

    Raises InputError where the key is missing or the client library is not installed.
    """

    def __init__(self, server: Server, *, store: Store | None, where: str) -> None:
        self.server, self.where = server, where
        self._store = store
        self._key = _key(server, where)
        self._library = _library(where)
        self._limit = "max_tokens"
        self._answered = False

    @property
    def identity(self) -> str:
        """Identity of the address and the model's name; no more can be known from outside."""
        return content_id([VERSION, self.server.url.rstrip("/"), self.server.model])

    def ask(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Answer]:
        """Return one answer for each request, in order; a request that failed is `refused` with the reason.

        Equal requests are sent once. Raises InputError where the server itself is the trouble.
        """
        keys = [request.key for request in requests]
        kept = self._store.get(KIND, self.identity) if self._store else {}
        answers = {key: Answer(**kept[key]) for key in keys if key in kept}
        due = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
        known = bool(answers)
        with closing(self._sent(due)) as sent:  # so that nothing more is sent once this stops
            for key, got in self._checked(sent, known=known):
                if self._store and got.refused is None:
                    self._store.put(KIND, self.identity, {key: asdict(got)})
                answers[key] = got
                if progress:
                    progress(len(answers), len(set(keys)))
        return [answers[key] for key in keys]

    def _checked(self, sent: Iterable[tuple[str, Answer | _Failure]], *, known: bool) -> Iterator[tuple[str, Answer]]:
        """What came back as answers; raises InputError where the server is the trouble, not a request."""
        failed = away = 0
        for key, got in sent:
            if isinstance(got, Answer):
                self._answered, away = True, 0
                yield key, got
                continue
            failed, away = failed + 1, away + 1 if got.away else 0
            if got.fatal or (got.away and not self._answered):
                raise self._stop(got.reason)
            if away == GIVE_UP or (failed == GIVE_UP and not (self._answered or known)):
                raise self._stop(f"{GIVE_UP} requests failed, the last one with: {got.reason}")
            yield key, Answer("", 0, False, got.reason)

    def _stop(self, reason: str) -> InputError:
        return InputError(f"{self.where}: {self.server.url}: {reason}")

    def _sent(self, due: Mapping[str, Request]) -> Generator[tuple[str, Answer | _Failure], None, None]:
        """Send requests and give what comes back; the first one alone, until the server has answered once."""
        left = list(due.items())
        if not left:
            return
        with self._library.OpenAI(
            api_key=self._key,
            base_url=self.server.url,
            timeout=self.server.timeout,
            max_retries=self.server.retries,
        ) as client:
            while left and not self._answered:
                key, request = left.pop(0)
                yield key, self._one(client, request)
            pool = ThreadPoolExecutor(self.server.concurrency)
            try:
                sent = {pool.submit(self._one, client, request): key for key, request in left}
                for future in as_completed(sent):
                    yield sent[future], future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, client: Any, request: Request) -> Answer | _Failure:
        try:
            return _read(self._create(client, request))
        except self._library.APIError as error:
            return self._explained(error)
        except ValueError as error:  # says that its answer is JSON, and it is none
            return _Failure(f"not JSON: {self._line(str(error))}")

    def _create(self, client: Any, request: Request) -> Any:
        """Send one request. Newer models of OpenAI want another name for the limit, and say so."""
        chosen: dict[str, Any] = {self._limit: request.max_tokens, "temperature": request.temperature}
        if request.temperature > 0:
            chosen |= {"seed": request.seed, "top_p": 1.0}
        try:
            return client.chat.completions.create(
                model=self.server.model, messages=_valid(chat(request.messages)), **chosen
            )
        except self._library.BadRequestError as error:
            if "max_completion_tokens" in chosen or "max_completion_tokens" not in _said(error):
                raise
        self._limit = "max_completion_tokens"
        return self._create(client, request)

    def _explained(self, error: Any) -> _Failure:
        """What an error of the client library means, in one line."""
        library = self._library
        if isinstance(error, library.APITimeoutError):
            return _Failure(f"no answer within {self.server.timeout:g} s")
        if isinstance(error, library.APIConnectionError):
            cause = self._line(str(error.__cause__ or error))
            return _Failure(f"cannot be reached ({cause}); start the server, or correct the url", away=True)
        if isinstance(error, library.AuthenticationError | library.PermissionDeniedError):
            name = self.server.api_key_env
            return _Failure(f"refuses the key (HTTP {error.status_code}); set ${name} to one of its keys", fatal=True)
        if isinstance(error, library.NotFoundError):
            return _Failure(
                f"knows no model {self.server.model!r}, or serves nothing at this address (HTTP 404); the url ends in "
                "/v1 on most servers, and /v1/models lists the models",
                fatal=True,
            )
        status = f"HTTP {error.status_code}: " if isinstance(error, library.APIStatusError) else ""
        return _Failure(status + self._line(_said(error)))

    def _line(self, text: str) -> str:
        """The first line of what a server says, without the key."""
        line = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
        if len(self._key) >= SECRET:
            line = line.replace(self._key, "***")
        return line[:LONGEST_REASON]


class ServerGenerator:
    """Generates through a server: the model, its chat template and its sampling are the server's.

    Adapters, the rendering of prompts and the switch for thinking are out of reach, and so are model files: what is
    measured is what the server serves.
    """

    def __init__(self, server: Server, *, store: Store | None) -> None:
        self._chats = Chats(server, store=store, where="evaluation.generation.server")

    @property
    def identity(self) -> str:
        """Identity of the server's address and of the model's name."""
        return self._chats.identity

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """Return one answer for each prompt, in order; the same prompt gets the same answer.

        Above temperature 0 each prompt has a seed of its own, which a server may heed or not.
        """
        requests = [_request(tuple(prompt), max_new_tokens, temperature, seed) for prompt in prompts]
        answers = self._chats.ask(requests, progress)
        return [
            answer if answer.refused is None else Answer("", 0, False, f"server: {answer.refused}")
            for answer in answers
        ]


def _request(prompt: tuple[Message, ...], max_tokens: int, temperature: float, seed: int) -> Request:
    own = int(content_id([seed, chat(prompt)])[:7], 16)  # below 2^31, which every server takes
    return Request(prompt, max_tokens, temperature, own)


def _read(reply: Any) -> Answer | _Failure:
    """What a reply says; servers leave out or misspell any part of it.

    A model that declines has answered: its words are the text. One whose words the server held back has not.
    """
    choices = getattr(reply, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        return _Failure("no answer in the reply")
    reason = getattr(choice, "finish_reason", None)
    if reason not in ("stop", "length", None):
        return _Failure(f"the reply ended with {str(reason)[:LONGEST_REASON]!r} instead of an answer")
    text = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
    if not isinstance(text, str):
        return _Failure("the answer is no text")
    tokens = getattr(getattr(reply, "usage", None), "completion_tokens", None)
    return Answer(_unicode(text).strip(), tokens if isinstance(tokens, int) else 0, reason == "length")


def _said(error: Any) -> str:
    """What a server says about an error: each has its own place for it, and the client library repeats only one."""
    body = error.body
    if isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
    return str(body or error.message)


def _valid(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**message, "content": _unicode(message["content"])} for message in messages]


def _unicode(text: str) -> str:
    """The text with `?` for lone surrogates, which cannot be sent and which tokenizers refuse."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _key(server: Server, where: str) -> str:
    """The key from the environment; servers on this machine mostly want none."""
    key = os.environ.get(server.api_key_env, "").strip()
    if key:
        return key
    host = urlsplit(server.url).hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return "none"
    raise InputError(
        f"{where}.api_key_env: ${server.api_key_env} is not set; put the key of {host} there (any text where it "
        "wants none)"
    )


def _library(where: str) -> Any:
    try:
        return import_module("openai")
    except ImportError:
        raise InputError(f"{where}: needs the openai client: pip install 'equipoise[openai]'") from None
