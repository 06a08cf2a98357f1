"""The one monotone map from raw rewards to 0-10, and the fixed set of answers that gives its two constants.

    ten(r) = 10 * F(r),   F(r) = 1 / (1 + exp(-(r - centre) / scale))

F is the distribution function of the logistic distribution. Its median is `centre`, its quartiles are
`centre` -+ `scale` * ln 3, and its standard deviation is `scale` * pi / sqrt(3). So where the rewards of the set follow
it, ten(r) / 10 is the share of the set's answers that get a lower reward than r.

The constants are the set's median, and the scale that its quartiles give, (q75 - q25) / (2 ln 3). For logistic rewards
that is sd * sqrt(3) / pi, and unlike the standard deviation it does not move when a few broken answers get extreme
rewards. Half of the set's answers lie between about 2.5 and 7.5, whatever the model.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal

from equipoise.records import InputError, Message
from equipoise.run_folder import read_json

FILE = "calibration.json"
GRADES = ("good", "middling", "poor", "broken")
ENOUGH = 0.5
"""Share of the set's answers that must have a reward."""
APART = 1e-5
"""Quartiles nearer to each other than this share of their own size are equal up to rounding."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The map from raw rewards to 0-10, frozen for a reward model.

    `source` says where the constants are from: `file` (calibration.json beside the model), `set` (the built-in set),
    `members` (an ensemble, whose values are in units of its members' maps), or `none` (the plain sigmoid). `version`
    is that of the file or the set, and `n` the number of answers behind the constants; 0 is not known.
    """

    centre: float = 0.0
    scale: float = 1.0
    source: Literal["file", "set", "members", "none"] = "none"
    version: int = 0
    n: int = 0

    def units(self, raw: float) -> float:
        """(raw - centre) / scale."""
        return (raw - self.centre) / self.scale

    def to_ten(self, raw: float) -> float:
        """10 * sigmoid((raw - centre) / scale)."""
        x = self.units(raw)
        small = math.exp(-abs(x))  # never overflows
        return 10.0 * (1.0 if x >= 0 else small) / (1.0 + small)

    def record(self) -> dict[str, Any]:
        """Return the JSON object that stands in a run's calibration.json."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Calibration:
        """Read it back; raises KeyError on a foreign object."""
        return cls(**{name: record[name] for name in cls.__slots__})

    def words(self) -> str:
        """One phrase that says which map this is."""
        constants = f"centre {self.centre:.4g}, scale {self.scale:.4g}"
        answers = f", {self.n} answers" if self.n else ""
        version = f" version {self.version}" if self.version else ""
        return {
            "file": f"{FILE} beside the model{version}{answers}: {constants}",
            "set": f"the built-in calibration set{version}{answers}: {constants}",
            "members": "the mean over the ensemble's members, each in units of its own map",
            "none": f"no calibration: {constants}",
        }[self.source]


@dataclass(frozen=True, slots=True)
class Graded:
    """A question of the calibration set with an answer of known quality."""

    domain: str
    messages: tuple[Message, ...]
    grade: str
    answer: str


@cache
def calibration_set() -> tuple[int, tuple[Graded, ...]]:
    """The built-in set: its version, and each question with its answer of each grade."""
    page = tomllib.loads(files(__package__).joinpath("calibration_set.toml").read_text(encoding="utf-8"))
    return page["version"], tuple(
        Graded(question["domain"], _messages(question), grade, question[grade])
        for question in page["question"]
        for grade in GRADES
    )


def _messages(question: Mapping[str, Any]) -> tuple[Message, ...]:
    """An optional system text, then turns that begin and end with the user's."""
    system = [Message("system", question["system"])] if "system" in question else []
    turns = [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(question["turns"])]
    return (*system, *turns)


def fit(rewards: Sequence[float | str], version: int, where: str) -> Calibration:
    """The constants that the rewards of the set's answers give; those without a reward are left out.

    Raises InputError where fewer than half have one, or where the quartiles are equal: no map could tell answers apart
    that the model does not.
    """
    numbers = [reward for reward in rewards if not isinstance(reward, str)]
    if len(numbers) < ENOUGH * len(rewards):
        reason = next(reward for reward in rewards if isinstance(reward, str))
        raise InputError(
            f"{where}: only {len(numbers)} of the calibration set's {len(rewards)} answers get a reward ({reason}); "
            f"raise reward.max_length, take another reward model, or put a {FILE} beside it"
        )
    low, middle, high = quantiles(numbers, n=4, method="inclusive")
    if high - low <= APART * max(abs(low), abs(high)):
        raise InputError(
            f"{where}: gives the same reward ({middle:.4g}) to half of the calibration set's answers, good and broken "
            "alike; take another reward model"
        )
    return Calibration(middle, (high - low) / (2 * math.log(3)), "set", version, len(numbers))


def read_calibration(folder: Path) -> Calibration | None:
    """The constants of `calibration.json` beside a reward model (`centre`, `scale`, and where given `version` and `n`).

    None where there is no such file; raises InputError where it is malformed.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    value = read_json(path)
    given = value if isinstance(value, dict) else {}
    centre, scale = _number(given.get("centre")), _number(given.get("scale"))
    if centre is None or scale is None or scale <= 0:
        raise InputError(f"{path}: needs `centre`, a number, and `scale`, a number above 0")
    version, n = given.get("version", 0), given.get("n", 0)
    if not all(isinstance(one, int) and one >= 0 for one in (version, n)):
        raise InputError(f"{path}: `version` and `n` are whole numbers, or left out")
    return Calibration(centre, scale, "file", version, n)


def _number(value: Any) -> float | None:
    """A finite number; what else JSON may hold (text, true, NaN) is none."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None
