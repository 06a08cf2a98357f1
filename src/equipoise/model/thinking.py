"""Answers of models that think: what comes after the thinking is the answer."""

from __future__ import annotations

from dataclasses import replace

from equipoise.model.generate import Answer

_ENDS = "</think>"


def without_thinking(answer: Answer) -> Answer:
    """What comes after the thinking; nothing where the answer is thinking alone."""
    text = answer.text.rpartition(_ENDS)[2].strip()
    unfinished = _ENDS not in answer.text and (answer.cut_off or answer.text.startswith("<think>"))
    return replace(answer, text="" if unfinished else text)
