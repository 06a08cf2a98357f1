"""Numbers for questions of mathematics: each set has a solution, most of them a round one.

The words around them stand in `math.toml`; each maker returns what the slots of its form are filled with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from equipoise.data.questions.draw import listed, pick, whole

Rng = np.random.Generator
Values = dict[str, Any]

TRIPLES = ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29), (9, 40, 41), (12, 35, 37), (28, 45, 53))
RECTANGLES = (
    (5, 7), (6, 2), (8, 7), (9, 3), (9, 31), (10, 14), (12, 4), (12, 23), (15, 5), (15, 21), (16, 14), (18, 6),
    (20, 1), (20, 28), (24, 8), (24, 21), (28, 17), (30, 10), (33, 23), (40, 2),
)  # fmt: skip
JOBS = (
    (3, 6), (4, 12), (6, 12), (5, 20), (6, 3), (8, 24), (10, 15), (2, 6), (9, 18), (12, 4), (15, 10), (4, 6),
    (12, 6), (20, 5), (7, 42), (30, 6), (12, 24), (14, 35), (21, 28), (18, 9),
)  # fmt: skip
"""Hours of two people whose joint time has few digits."""
WAYS = (
    ("on foot", 4, 6), ("by bicycle", 15, 24), ("on a scooter", 28, 40), ("by tractor", 20, 30),
    ("on horseback", 9, 13), ("by car", 50, 80), ("on inline skates", 12, 18), ("by bus", 30, 45),
)  # fmt: skip
RECORDS = (
    ("a bakery", "the number of cakes sold per day", 20, 60),
    ("a runner", "the times of several runs in minutes", 41, 59),
    ("a school class", "the number of books that some pupils read last year", 1, 24),
    ("a weather station", "the daily rainfall in millimetres", 0, 30),
    ("a swimming pool", "the number of visitors per hour", 15, 95),
    ("a beekeeper", "the kilograms of honey per hive", 8, 40),
    ("a call centre", "waiting times in seconds", 12, 140),
    ("a cinema", "the number of empty seats per showing", 3, 80),
    ("a laboratory", "reaction times in milliseconds", 210, 390),
    ("a farmer", "the number of eggs per day", 60, 110),
    ("a ferry company", "the delays of its crossings in minutes", 0, 35),
    ("an orchard", "the number of apples per branch", 4, 27),
    ("a post office", "the number of parcels per hour", 18, 75),
    ("a librarian", "the number of days by which books came back late", 1, 45),
)
"""Who recorded what, and between which values."""


def tickets_sold(rng: Rng) -> Values:
    """Two prices, how many came, and what was taken in."""
    adults, children, child = whole(rng, 40, 260, 5), whole(rng, 20, 180, 5), whole(rng, 3, 9)
    adult = child + whole(rng, 2, 9)
    income = adults * adult + children * child
    target = math.ceil(income * 1.1 / 100) * 100
    return {"total": adults + children, "adult": adult, "child": child, "income": income, "target": target}


def two_travellers(rng: Rng) -> Values:
    """Two people who meet after a whole number of quarters of an hour."""
    first, second = (WAYS[place] for place in rng.permutation(len(WAYS))[:2].tolist())
    speed_a, speed_b = whole(rng, *first[1:]), whole(rng, *second[1:])
    quarters = whole(rng, 2, 10)
    while (speed_a + speed_b) * quarters % 4:
        quarters += 1
    distance = (speed_a + speed_b) * quarters // 4
    modes = {"mode_a": first[0], "mode_b": second[0], "speed_a": speed_a, "speed_b": speed_b}
    return {**modes, "distance": distance, "hour": whole(rng, 7, 11), "gap": max(2, distance // 5)}


def work_together(rng: Rng) -> Values:
    """Two times of work."""
    hours_a, hours_b = pick(rng, JOBS)
    return {"hours_a": hours_a, "hours_b": hours_b, "pay": 30 * (hours_a + hours_b)}


def compound_interest(rng: Rng) -> Values:
    """A deposit with interest on interest."""
    amount, rate, years = whole(rng, 800, 12000, 100), whole(rng, 3, 12) / 2, whole(rng, 3, 12)
    goal = math.ceil(amount * (1 + (rate + 1) / 100) ** years / 100) * 100
    return {"amount": amount, "rate": f"{rate:g}", "years": years, "goal": goal}


def price_changes(rng: Rng) -> Values:
    """Up by one percentage and down by another."""
    return {
        "price": whole(rng, 40, 900, 20),
        "p": whole(rng, 5, 40, 5),
        "q": whole(rng, 5, 40, 5),
        "voucher": whole(rng, 5, 20, 5),
    }


def mixture(rng: Rng) -> Values:
    """A weaker liquid that is brought to a higher percentage with a stronger one; both volumes are whole."""
    low, added = whole(rng, 2, 10, 2), whole(rng, 2, 12)
    target = low + whole(rng, 4, 12, 2)
    high = target + whole(rng, 6, 20, 2)
    parts, divisor = added * (high - target), target - low
    volume = parts // math.gcd(parts, divisor)
    return {"volume": volume, "low": low, "target": target, "high": high}


def rectangle(rng: Rng) -> Values:
    """Length and width are whole, and so is the diagonal in many cases."""
    side, more = pick(rng, RECTANGLES)
    return {"more": more, "area": side * (side + more)}


def right_triangle(rng: Rng) -> Values:
    """Whole sides, and multiples of them for the stories."""
    times = whole(rng, 1, 6)
    a, b, c = (side * times for side in pick(rng, TRIPLES))
    tall = times + a
    return {
        "sa": a,
        "sb": b,
        "sc": c,
        "times": times,
        "tall": tall,
        "a10": a * 10,
        "b10": b * 10,
        "factor": whole(rng, 2, 5),
    }


def cylinder(rng: Rng) -> Values:
    """A tank from a barrel to a pond, in metres, and a tap that fills it in one to seven hours."""
    diameter, height = whole(rng, 6, 40, 2) / 10, whole(rng, 8, 36, 2) / 10
    flow = max(4, round(3.14 * (diameter / 2) ** 2 * height * 1000 / whole(rng, 60, 400)))
    return {"diameter": f"{diameter:g}", "height": f"{height:g}", "flow": flow, "loss": max(1, flow // 5)}


def parabola(rng: Rng) -> Values:
    """A quadratic with whole zeros and a whole vertex, and a line that meets it."""
    low = whole(rng, -7, 3)
    high = low + whole(rng, 2, 10, 2)
    factor, slope = pick(rng, (1, 1, 2, 3)), pick(rng, (-3, -2, 2, 3))
    written = polynomial([factor, -factor * (low + high), factor * low * high])
    line = polynomial([slope, -slope * high])
    return {"polynomial": written, "line": line, "shift": whole(rng, 2, 6)}


def arithmetic_sequence(rng: Rng) -> Values:
    """Something that grows by the same amount each time."""
    first, step, count = whole(rng, 6, 40, 2), whole(rng, 2, 9), whole(rng, 12, 40)
    total = count * (2 * first + (count - 1) * step) // 2
    return {"start": first, "step": step, "count": count, "bound": total * 2, "near": first + step * count * 3 + 1}


def committee(rng: Rng) -> Values:
    """Choices without order."""
    size = whole(rng, 3, 5)
    return {"women": whole(rng, 4, 9), "men": whole(rng, 3, 8), "size": size, "exact": whole(rng, 2, size - 1)}


def urn(rng: Rng) -> Values:
    """Two draws without putting back."""
    return {"red": whole(rng, 3, 14), "blue": whole(rng, 3, 14)}


def remainders(rng: Rng) -> Values:
    """Two remainders, neither of them 0, that fix a number below the product of the divisors."""
    p, q = pick(rng, ((5, 7), (7, 9), (4, 9), (8, 11), (5, 12), (9, 10), (7, 11), (6, 13), (8, 9), (11, 12), (5, 13)))
    fitting = [number for number in range(q, p * q) if number % p and number % q]
    number = pick(rng, fitting)
    return {"p": p, "q": q, "first": number % p, "second": number % q, "product": p * q, "double": 2 * p * q}


def meeting_again(rng: Rng) -> Values:
    """Two periods that share a factor, so that they coincide before their product."""
    shared = pick(rng, (2, 3, 4, 5, 6, 8))
    p, q = pick(rng, ((2, 3), (3, 4), (3, 5), (4, 5), (2, 5), (4, 7), (5, 6), (3, 7)))
    return {"p": shared * p, "q": shared * q, "further": pick(rng, (5, 6, 9, 10, 16)), "late": whole(rng, 1, 5)}


def statistics(rng: Rng) -> Values:
    """Seven to nine values with a whole mean."""
    who, what, low, high = pick(rng, RECORDS)
    values = [whole(rng, low, high) for _ in range(whole(rng, 6, 8))]
    last = next(value for value in range(low, high) if (sum(values) + value) % (len(values) + 1) == 0)
    values.insert(whole(rng, 0, len(values)), last)
    wanted = sum(values) // len(values) + whole(rng, 1, 3)
    return {"who": who, "what": what, "values": listed([str(value) for value in values]), "wanted": wanted}


def cubic(rng: Rng) -> Values:
    """A cubic whose extreme points are whole.

    f' = 3 factor (x - low)(x - high), and low + high is even, so that all coefficients of f are whole.
    """
    low = whole(rng, -4, 1)
    high = low + whole(rng, 2, 6, 2)
    factor, constant = pick(rng, (1, 1, -1, 2)), whole(rng, -9, 9)
    square, linear = -3 * factor * (low + high) // 2, 3 * factor * low * high
    level = factor * low**3 + square * low**2 + linear * low + constant
    written = polynomial([factor, square, linear, constant])
    return {"polynomial": written, "x": whole(rng, -2, 3), "level": level, "upper": whole(rng, 1, 3)}


def inequality(rng: Rng) -> Values:
    """One of several shapes of inequality, most of them with whole borders."""
    a, b, c = whole(rng, 2, 5), whole(rng, 1, 9), whole(rng, 2, 7)
    low = whole(rng, -8, 2)
    high = low + whole(rng, 3, 9)
    right, beyond = a * c, c * (high - low + c)
    quadratic = polynomial([1, -(low + high), low * high])
    shapes = (
        (f"|{a}x - {a * b}| <= {right}", right),
        (f"|{a}x + {a * b}| > {right}", right),
        (f"{quadratic} < 0", 0),
        (f"{quadratic} >= {beyond}", beyond),
        (f"{a}x + {b} < {a + c}x - {b + c}", -(b + c)),
        (f"(x - {b}) / (x + {c}) > {a}", a),
        (f"|x - {b}| + |x + {c}| <= {b + c + 2 * a}", b + c + 2 * a),
        (f"-{right} < {a}x - {b} <= {right + b}", right + b),
        (f"x^2 - {b * b} < {right}", right),
    )
    shape, end = pick(rng, shapes)
    return {"inequality": shape, "right": end}


def lines(rng: Rng) -> Values:
    """Two points on a line with a whole slope, and a third point."""
    ax, ay, dx = whole(rng, -6, 4), whole(rng, -6, 6), whole(rng, 1, 4) * 2
    slope = pick(rng, (-3, -2, -1, 1, 2, 3))
    point = f"P({whole(rng, -5, 5)}, {whole(rng, -5, 5)})"
    return {"points": f"A({ax}, {ay}) and B({ax + dx}, {ay + slope * dx})", "point": point}


def exponential(rng: Rng) -> Values:
    """Growth or decay by a constant factor."""
    every, after, percent = whole(rng, 2, 6), whole(rng, 3, 6), whole(rng, 4, 24, 2)
    small = f"{percent / 4:g}"
    return {
        "start": whole(rng, 2, 30) * 100, "every": every, "few": after, "later": every * after, "percent": percent,
        "small": small,
    }  # fmt: skip


def break_even(rng: Rng) -> Values:
    """Costs and prices with a whole break-even point; a price one euro lower sells more."""
    cost, margin, point = whole(rng, 4, 40), whole(rng, 4, 25), whole(rng, 40, 300, 10)
    price, sales = cost + margin, point + whole(rng, 20, 200, 10)
    return {"cost": cost, "price": price, "fixed": margin * point, "sales": sales, "rise": point, "lower": price - 1}


def ages(rng: Rng) -> Values:
    """Two ages, and in how many years the older one is twice as old as the younger."""
    younger, gap = whole(rng, 5, 11), whole(rng, 13, 32)
    older = younger + gap
    return {
        "gap": gap, "sum": older + younger, "product": older * younger, "later": gap - younger,
        "earlier": older + younger - 8, "weighted": older + 3 * younger,
    }  # fmt: skip


def shares(rng: Rng) -> Values:
    """A total that three people divide in a whole ratio."""
    ratio = pick(
        rng, ((2, 3, 4), (1, 2, 5), (3, 4, 5), (2, 5, 6), (1, 3, 4), (4, 5, 6), (3, 5, 7), (2, 3, 7), (5, 6, 9))
    )
    return {"total": sum(ratio) * whole(rng, 6, 60, 3), "ratio": ":".join(map(str, ratio))}


def matrix(rng: Rng) -> Values:
    """A two-by-two matrix that has an inverse."""
    while True:
        a, b, c, d = (whole(rng, -5, 6) for _ in range(4))
        if a * d != b * c:
            return {"a": a, "b": b, "c": c, "d": d}


def game(rng: Rng) -> Values:
    """A stake, a prize, and how often the game is played."""
    return {"stake": whole(rng, 1, 4), "prize": whole(rng, 5, 15), "rounds": whole(rng, 5, 20)}


def polynomial(coefficients: list[int]) -> str:
    """`2x^2 - 3x + 1` of [2, -3, 1]."""
    written = ""
    for power, factor in zip(range(len(coefficients) - 1, -1, -1), coefficients, strict=True):
        if factor:
            sign = (" - " if written else "-") if factor < 0 else (" + " if written else "")
            size = "" if abs(factor) == 1 and power else str(abs(factor))
            written += f"{sign}{size}{'' if power == 0 else 'x' if power == 1 else f'x^{power}'}"
    return written or "0"


MAKERS: Mapping[str, Callable[[Rng], Values]] = {
    maker.__name__: maker
    for maker in (
        tickets_sold, two_travellers, work_together, compound_interest, price_changes, mixture, rectangle,
        right_triangle, cylinder, parabola, arithmetic_sequence, committee, urn, remainders, meeting_again, statistics,
        cubic, inequality, lines, exponential, break_even, ages, shares, matrix, game,
    )
}  # fmt: skip
