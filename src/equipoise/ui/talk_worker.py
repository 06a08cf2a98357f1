"""The process that holds the models of a talk: base and tuned are one model, its adapters off or on.

A line on stdin is a question as JSON (`talk.Question`), or `{"stop": true}`; lines on stdout are its answers: `note`,
`side` with the `text` so far, `end`, `error`. It ends when stdin is closed, that is, with the app.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.records import InputError, Message, content_id

EVERY = 0.05
"""Seconds between two lines about the same answer."""
ROOM = 8
"""A conversation is too long where fewer new tokens than these fit behind it."""


@dataclass
class Held:
    """The model that is loaded, and of which run and point it is."""

    key: tuple[str, str]
    loaded: Any
    model: Any
    thinking: bool


def main() -> None:
    """Answer until stdin is closed."""
    from equipoise.commands import quiet

    quiet()
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints does not get among the answers
    asked: queue.Queue[dict[str, Any]] = queue.Queue()
    stopped = threading.Event()
    threading.Thread(target=_listen, args=(asked, stopped), daemon=True).start()
    held: Held | None = None
    while True:
        question = asked.get()
        stopped.clear()

        def say(number: int = question["number"], **news: Any) -> None:
            answers.write(json.dumps({"number": number, **news}) + "\n")

        try:
            if held is None or held.key != (question["folder"], question["point"]):
                held = None  # gives its memory back before the next one is loaded
                say(note="loading the model")
                held = load(Path(question["folder"]), question["point"])
            _answer(held, question, say, stopped)
            say(end=True)
        except (InputError, OSError, MemoryError, RuntimeError) as error:  # torch's lack of memory is a RuntimeError
            held = None if not isinstance(error, InputError) else held
            said = str(error).strip() or type(error).__name__
            say(error=said.splitlines()[0])


def _listen(asked: queue.Queue[dict[str, Any]], stopped: threading.Event) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        stopped.set()  # a new question ends the answer to the last one
        if "stop" not in request:
            asked.put(request)
    os._exit(0)


def load(folder: Path, point: str) -> Held:
    """Load the base model of a run with the adapters of a point; raises InputError where that cannot be done."""
    from equipoise.model.adapters import attach
    from equipoise.model.load import load_policy
    from equipoise.recipe_file import stored_recipe
    from equipoise.run_folder import read_json
    from equipoise.ui.stacks import stack_of

    spec = stored_recipe(read_json(folder / "recipe.json")).model
    stack = stack_of(folder, point) if point != "base" else []
    loaded = load_policy(spec)
    return Held((str(folder), point), loaded, attach(loaded, stack), spec.thinking)


def _answer(held: Held, question: dict[str, Any], say: Callable[..., None], stopped: threading.Event) -> None:
    """Let each side go on with its own conversation, one after the other."""
    for side, turns in question["chats"].items():
        messages = [Message(turn["role"], turn["content"]) for turn in turns]
        began = said = time.monotonic()
        written = ("", 0, False)
        with _adapters(held, on=side == "tuned"):
            pieces = speak(held, messages, question["temperature"], question["max_new_tokens"], question["seed"])
            for written in pieces:
                if stopped.is_set():
                    break
                if time.monotonic() - said >= EVERY:
                    said = time.monotonic()
                    say(side=side, text=written[0])
        seconds = round(time.monotonic() - began, 2)
        text, tokens, ended = written
        say(side=side, text=text, done=True, tokens=tokens, seconds=seconds, cut_off=not ended)
        if stopped.is_set():
            return


def _adapters(held: Held, *, on: bool) -> AbstractContextManager[Any]:
    """Within, the model is the tuned one, or the base."""
    adapted = held.model is not held.loaded.model
    manager: AbstractContextManager[Any] = held.model.disable_adapter() if adapted and not on else nullcontext()
    return manager


def speak(
    held: Held, messages: list[Message], temperature: float, most: int, seed: int
) -> Iterator[tuple[str, int, bool]]:
    """Write an answer token by token: (the text so far, its tokens, whether the model ended it itself).

    Temperature 0 takes the most likely token; above 0 tokens are drawn with a seed from `seed` and the conversation.
    Raises InputError where the conversation leaves no room for an answer.
    """
    import torch

    from equipoise.model.chat import answer_text, prompt_ids
    from equipoise.model.generate import end_tokens, positions

    tokenizer = held.loaded.tokenizer
    prompt = prompt_ids(tokenizer, messages, thinking=held.thinking)
    room = min(most, positions(held.loaded.model) - len(prompt))
    if room < min(most, ROOM):
        raise InputError(f"the conversation is too long for this model ({len(prompt)} tokens); begin a new one")
    ends = end_tokens(held.loaded)
    draw = torch.Generator().manual_seed(int(content_id([seed, prompt])[:15], 16))
    ids = torch.tensor([prompt], device=held.loaded.device)
    cache, written = None, list[int]()
    with torch.inference_mode():
        while len(written) < room:
            output = held.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, logits = output.past_key_values, output.logits[0, -1].float().cpu()
            if temperature > 0:
                token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=draw))
            else:
                token = int(logits.argmax())
            written.append(token)
            ended = token in ends
            yield answer_text(tokenizer, written[:-1] if ended else written), len(written), ended
            if ended:
                return
            ids = torch.tensor([[token]], device=held.loaded.device)


if __name__ == "__main__":
    main()
