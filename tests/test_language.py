"""An answer that leaves the language of its question."""

from __future__ import annotations

import pytest

from equipoise.evaluation.health import health
from equipoise.evaluation.language import switches

QUESTION = (
    "I have two loans and one of them costs me more each month. Which of them should I pay back first, and why is that?"
)
SPANISH = (
    "Deberías pagar primero el préstamo que tiene el interés más alto, porque es el que más te cuesta cada mes, y "
    "después el otro préstamo que tienes con tu banco, si te queda dinero."
)


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        (QUESTION, "Pay the dear one first.", False),
        (QUESTION, "Pay the dear one first. 你应该先还利息高的贷款", True),
        (QUESTION, SPANISH, True),
        (SPANISH, SPANISH, False),
        ("请翻译", "你应该先还利息高的贷款", False),
        (QUESTION, "Let \u03b1 and \u03b2 be the rates; pay \u03b1 first if \u03b1 > \u03b2.", False),
        (QUESTION, "Pay it. ```python\nимя = 'значение переменной номер один'\n```", False),
        (QUESTION, "Заплатите сначала дорогой кредит.", True),
        (QUESTION, "Café Zürich, São Paulo and Kraków are names in this sentence about which loan to pay.", False),
        (QUESTION, "1, 2, 3", False),
        ("", SPANISH, False),
    ],
)
def test_switches(question: str, answer: str, expected: bool) -> None:
    assert switches(question, answer) is expected
    assert health((answer,), False, question).switched is expected
