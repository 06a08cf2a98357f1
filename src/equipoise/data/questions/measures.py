"""Numbers for questions of science: what belongs together in nature is drawn together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from equipoise.data.questions.draw import pick, whole

Rng = np.random.Generator
Values = dict[str, Any]

NUCLIDES = (
    ("iodine-131", 8, "days"), ("technetium-99m", 6, "hours"), ("fluorine-18", 110, "minutes"),
    ("cobalt-60", 5.3, "years"), ("caesium-137", 30, "years"), ("phosphorus-32", 14.3, "days"),
    ("sodium-24", 15, "hours"), ("carbon-11", 20.4, "minutes"), ("iridium-192", 74, "days"),
)  # fmt: skip
VEHICLES = (
    ("car", 900, 2200, 36, 126, 7.0),
    ("tram", 28000, 42000, 27, 54, 1.3),
    ("motorcycle with its rider", 230, 380, 45, 108, 7.5),
    ("loaded lorry", 12000, 36000, 36, 81, 4.5),
    ("bicycle with its rider", 75, 110, 18, 36, 4.0),
    ("train carriage", 32000, 50000, 54, 144, 0.9),
    ("city bus", 11000, 18000, 27, 54, 2.5),
)
"""Mass in kg and speed in km/h, each from and to, and a usual deceleration in m/s^2."""
HEATERS = (
    ("a family", "an immersion heater", 60, 150, 15, 30),
    ("a hiker", "a gas stove", 1, 3, 10, 22),
    ("a laboratory", "a hot plate", 1, 5, 8, 20),
    ("a swimming club", "a heat exchanger", 2000, 9000, 200, 600),
    ("a canteen", "an electric boiler", 20, 60, 30, 90),
    ("a student", "a kettle", 1, 2, 18, 30),
    ("a brewery", "a steam jacket", 300, 900, 250, 500),
    ("a camper", "a solar panel and a heating rod", 5, 20, 2, 6),
    ("a dairy", "a heat pump", 100, 400, 40, 120),
)
"""Litres from and to, and tenths of a kilowatt from and to."""
SUBSTANCES = (
    ("acetic acid", 25, "descaling"), ("ethanol", 96, "disinfecting surfaces"),
    ("hydrogen peroxide", 30, "cleaning glassware"), ("sodium chloride", 20, "an experiment on osmosis"),
    ("glucose", 40, "feeding yeast"), ("citric acid", 50, "a titration"),
    ("glycerol", 86, "preserving specimens"), ("sucrose", 60, "a density column"),
    ("isopropanol", 70, "cleaning lenses"), ("urea", 45, "a skin cream"), ("sodium carbonate", 18, "dyeing cloth"),
)  # fmt: skip
"""Each with the percentage of the solution that is at hand."""


def radioactive(rng: Rng) -> Values:
    """Decay over a few half-lives."""
    nuclide, half, unit = pick(rng, NUCLIDES)
    after, part = half * pick(rng, (2, 3, 4, 1.5, 2.5, 5)), whole(rng, 2, 60)
    return {
        "nuclide": nuclide, "half": f"{half:g}", "unit": unit, "after": f"{after:g}",
        "n0": part * whole(rng, 4, 20), "part": part,
    }  # fmt: skip


def braking(rng: Rng) -> Values:
    """A vehicle that brakes about as hard as such vehicles do."""
    vehicle, light, heavy, slow, fast, rate = pick(rng, VEHICLES)
    kmh = whole(rng, slow, fast, 9)
    distance = max(2, round((kmh / 3.6) ** 2 / (2 * rate)))
    return {"vehicle": vehicle, "mass": whole(rng, light, heavy, 10), "kmh": kmh, "distance": distance}


def heating(rng: Rng) -> Values:
    """Water and a heater of a fitting size."""
    who, device, little, much, weak, strong = pick(rng, HEATERS)
    cold = whole(rng, 8, 20)
    return {
        "who": who, "device": device, "litres": whole(rng, little, much), "power": f"{whole(rng, weak, strong) / 10:g}",
        "cold": cold, "hot": cold + whole(rng, 20, 70, 5), "efficiency": whole(rng, 55, 95, 5),
    }  # fmt: skip


def dilution(rng: Rng) -> Values:
    """A solution to be made from a stronger one."""
    substance, stock, use = pick(rng, SUBSTANCES)
    target = whole(rng, 2, stock // 2 - 1)  # less than half: equal volumes are still too strong
    return {"substance": substance, "stock": stock, "use": use, "target": target, "volume": whole(rng, 100, 2000, 50)}


MAKERS: Mapping[str, Callable[[Rng], Values]] = {
    maker.__name__: maker for maker in (radioactive, braking, heating, dilution)
}
