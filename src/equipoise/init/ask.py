"""The questions of `equipoise init` in a terminal; a wrong answer is explained, and asked for again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from equipoise.init.answers import POCKET, Answers, domain_of, parse_columns, require_answers
from equipoise.init.look import Look, look
from equipoise.records import InputError

Ask = Callable[[str, str], str]
"""Puts a question with a default answer to the user, and returns the answer."""
Say = Callable[[str], None]


def ask_rest(answers: Answers, ask: Ask, say: Say) -> Answers:
    """The answers with what flags left open; `ask` is asked again until a file can be used."""
    if not answers.data:
        answers = _ask_data(answers, ask, say)
    if not answers.data:
        return answers
    answers, found = _until_known(answers, ask, say)
    say(f"  {found.told()}")
    if answers.domain is None:
        answers = replace(
            answers, domain=ask("What do these pairs teach? One word", domain_of(found.id, found.layout.kind))
        )
    if answers.general is None:
        said = ask("General pairs beside them, so that other abilities hold? A file or hub id, or nothing", "")
        answers = replace(answers, general=said or None)
    if answers.reward is None:
        said = ask("A reward model that scores answers? A hub id, a folder, or nothing", "")
        answers = replace(answers, reward=said or None)
    return answers


def _ask_data(answers: Answers, ask: Ask, say: Say) -> Answers:
    hint = ", or nothing for its own world" if answers.model == POCKET else ""
    while True:
        said = ask(f"Which pairs? A .json, .jsonl, .parquet or .csv file, a folder or a hub id{hint}", "")
        asked = replace(answers, data=(said,) if said else ())
        try:
            require_answers(asked)
        except InputError as error:
            say(f"  {error}")
            continue
        return asked


def _until_known(answers: Answers, ask: Ask, say: Say) -> tuple[Answers, Look]:
    """Columns are asked for until every file can be read."""
    while True:
        try:
            found = [look(id, answers) for id in answers.data]
            return answers, found[0]
        except InputError as error:
            say(f"  {error}")
        said = ask("Which column is what? As prompt=...,chosen=...,rejected=... (nothing: another file)", "")
        if not said:
            answers = _ask_data(replace(answers, columns={}), ask, say)
            continue
        try:
            answers = replace(answers, columns=parse_columns(said))
        except InputError as error:
            say(f"  {error}")
