"""A talk with base and tuned model: the app's end of it. The models live in a process of their own.

That process is started by the first question, holds one model at a time, and ends with the app.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equipoise.records import InputError

LONGEST = 100_000
"""Characters of all turns together."""
MOST_TOKENS = 2048
ROLES = ("user", "assistant")


@dataclass(frozen=True)
class Question:
    """What is asked: `chats` holds the turns for each side (`base`, `tuned`), the last one the user's."""

    number: int
    folder: str
    point: str
    chats: Mapping[str, list[dict[str, str]]]
    temperature: float
    max_new_tokens: int
    seed: int


class Busy(Exception):
    """Another answer is being written."""


class Talk:
    """The process of the models, and the one answer that it may be writing."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._number = 0
        self._busy = False

    async def answer(self, folder: Path, request: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Ask, and give what the process says until the answers have ended; the last one is `end` or `error`.

        Raises InputError where the request makes no sense, Busy while another answer is written.
        """
        if self._busy:
            raise Busy
        self._number += 1
        question = read_question(self._number, folder, request)
        self._busy = True
        try:
            process = await self._started()
            self._send(process, asdict(question))
            async for news in self._news(process, question.number):
                yield news
        finally:
            self.stop()
            self._busy = False

    def stop(self) -> None:
        """End the answer that is being written; what is there of it stays."""
        if self._process is not None and self._process.returncode is None:
            self._send(self._process, {"stop": True})

    async def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _started(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            command = (sys.executable, "-m", "equipoise.ui.talk_worker")
            self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=2**22)
        return self._process

    @staticmethod
    def _send(process: Process, request: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        if not process.stdin.is_closing():
            process.stdin.write(json.dumps(request).encode() + b"\n")

    @staticmethod
    async def _news(process: Process, number: int) -> AsyncGenerator[dict[str, Any]]:
        """The lines about one question; what was still said about an earlier one is left out."""
        assert process.stdout is not None
        while True:
            line = await process.stdout.readline()
            if not line:
                code = await process.wait()
                yield {"error": f"the process of the models has ended (code {code}); was there too little memory?"}
                return
            news = json.loads(line)
            if news.pop("number") == number:
                yield news
                if "end" in news or "error" in news:
                    return


def read_question(number: int, folder: Path, request: Mapping[str, Any]) -> Question:
    """The question that a request asks; raises InputError where it makes no sense."""
    chats = request.get("chats")
    if not isinstance(chats, dict) or not chats or set(chats) - {"base", "tuned"}:
        raise InputError("chats: the turns of base, tuned, or both are expected")
    for turns in chats.values():
        _require_turns(turns)
    if sum(len(turn["content"]) for turns in chats.values() for turn in turns) > LONGEST:
        raise InputError(f"the conversation is longer than {LONGEST:,} characters; begin a new one")
    return Question(
        number=number,
        folder=str(folder.resolve()),
        point=str(request.get("point", "base")),
        chats=chats,
        temperature=_number(request, "temperature", 0.0, 5.0),
        max_new_tokens=int(_number(request, "max_new_tokens", 1, MOST_TOKENS)),
        seed=int(_number(request, "seed", 0, 2**31)),
    )


def _require_turns(turns: Any) -> None:
    for place, turn in enumerate(turns if isinstance(turns, list) else ()):
        right = isinstance(turn, dict) and turn.get("role") == ROLES[place % 2] and isinstance(turn.get("content"), str)
        if not right:
            raise InputError("chats: turns are {role, content}, of user and assistant by turns")
    if not isinstance(turns, list) or len(turns) % 2 == 0:
        raise InputError("chats: the last turn is expected to be the user's")


def _number(request: Mapping[str, Any], key: str, low: float, high: float) -> float:
    value = request.get(key, low)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InputError(f"{key}: a number from {low:g} to {high:g} is expected")
    return value
