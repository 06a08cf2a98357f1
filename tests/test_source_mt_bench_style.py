"""Questions in MT-Bench's style: the built-in bank, the refusal of MT-Bench itself, and pairs of both turns."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.data.near import near_duplicates
from equipoise.data.overlap import Overlap
from equipoise.data.questions import MAKERS, MOST, bank, forms
from equipoise.data.sampling import sample_seed
from equipoise.data.seeds import generator
from equipoise.data.sources import mt_bench_style
from equipoise.data.sources.mt_bench_style import build, fingerprint, finish, official, require_not_evaluated
from equipoise.data.workshop import Workshop
from equipoise.model.generate import Answer, TransformersGenerator
from equipoise.model.load import load_policy
from equipoise.model.reward import RewardModel
from equipoise.recipe import ModelSpec, Policy, RewardSpec
from equipoise.recipe_sources import CATEGORIES, Category, MtBenchStyleSource
from equipoise.records import InputError, Message, Pair, content_id
from equipoise.store import Store
from models import make_policy, make_reward
from samplers import LastWord, answer

torch.set_num_threads(1)
EACH = 400
SLOT = re.compile(r"\{(\w+)\}")
Draw = Callable[[], dict[str, Any]]


def source(**options: Any) -> MtBenchStyleSource:
    return MtBenchStyleSource(kind="mt_bench_style", **options)


def file_of(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# --- the bank ---


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_has_many_questions_none_near_another(category: Category) -> None:
    asked = bank(category, EACH)
    assert {question.category for question in asked} == {category}
    firsts = [question.turns[0] for question in asked]
    assert len(set(firsts)) == EACH
    assert near_duplicates([(first,) for first in firsts]) == [None] * EACH
    assert bank(category, 50) == asked[:50]
    for first, second in (question.turns for question in asked):
        assert first.strip() == first and second.strip() == second
        assert len(first) > 30 and len(second) > 20 and first[0].isupper() | first.startswith(('"', "|"))
        assert "  " not in first.split("```")[0] and ".." not in second
    words = Counter(" ".join(first.split()[:4]) for first in firsts)
    assert max(words.values()) <= EACH // 10, "too many questions begin alike"


def test_there_are_as_many_as_promised_and_no_more() -> None:
    assert len(bank("coding", MOST)) == MOST
    with pytest.raises(InputError, match=r"1001 built-in questions of stem asked, there are 1000; lower `questions`"):
        bank("stem", MOST + 1)


def test_the_bank_is_the_same_in_every_process() -> None:
    code = (
        "from equipoise.data.questions import bank\n"
        "from equipoise.recipe_sources import CATEGORIES\nfrom equipoise.records import content_id\n"
        "print(content_id([list(q.turns) for c in CATEGORIES for q in bank(c, 60)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C.UTF-8"}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    own = content_id([list(question.turns) for category in CATEGORIES for question in bank(category, 60)])
    assert told.stdout.strip() == own


def test_every_slot_is_filled_by_something_and_everything_is_used() -> None:
    for category in CATEGORIES:
        for form in forms(category):
            made = set(MAKERS[form.make](generator(0))) if form.make else set()
            named = {name for key in form.slots for name in key.split(", ")}
            values = [value for key in form.slots if key != "code" for value in form.slots[key]]
            texts = [form.first, *form.then]
            for value in values:
                texts += value if isinstance(value, list) else [value]
            used = {name for text in texts for name in SLOT.findall(text)}
            assert used - {"name", "other", "third"} == made | named, (category, form.first)
            for key, of in form.slots.items():
                width = len(key.split(", "))
                assert all(len(value) == width if width > 1 else isinstance(value, str) for value in of), key
                assert len({json.dumps(value) for value in of}) == len(of), f"{category}: {key} has a value twice"


# --- what must be solvable is solvable ---


def drawn(maker: str) -> Draw:
    source = generator("test", maker)
    return lambda: MAKERS[maker](source)


def test_orders_are_settled_by_their_clues() -> None:
    draw = drawn("ordering")
    for _ in range(20):
        made = draw()
        people = re.split(r", | and ", made["people"])
        fitting = [order for order in permutations(people) if all(_holds(clue, order) for clue in _clues(made))]
        assert len(fitting) == 1 and fitting[0][2] == made["middle"]


def _clues(made: dict[str, Any]) -> list[str]:
    return [clue for clue in made["clues"].split(".") if clue]


def _holds(clue: str, order: tuple[str, ...]) -> bool:
    place = {name: number for number, name in enumerate(order)}
    named = [word for word in clue.split() if word in place]
    a, b = named[0], named[-1]
    if "between" in clue:
        return abs(place[b] - place[a]) - 1 == next(n for n, w in enumerate(("one", "two", "three"), 1) if w in clue)
    if "not" in clue:
        return place[a] != {"first": 0, "third": 2, "last": 4}[clue.split()[-1]]
    return place[b] - place[a] == 1 if "directly" in clue else place[a] < place[b]


def test_hours_walks_jugs_and_remainders_have_their_one_answer() -> None:
    meeting, walk, jugs, remainders = (drawn(name) for name in ("meeting", "walk", "jugs", "remainders"))
    for _ in range(40):
        free = [set(map(int, re.findall(r"\d+", line))) for line in meeting()["free"].split(".") if line]
        assert len(free) == 4 and len(set.intersection(*free)) == 1
        assert math.hypot(*_end_of(walk())).is_integer()
        made = jugs()
        assert made["amount"] in _measured(made["small"], made["large"])
        made = remainders()
        fitting = [
            n for n in range(made["product"]) if (n % made["p"], n % made["q"]) == (made["first"], made["second"])
        ]
        assert len(fitting) == 1 and fitting[0] >= made["q"]


def _end_of(made: dict[str, Any]) -> tuple[int, int]:
    facing = {"north": 1j, "east": 1, "south": -1j, "west": -1}[made["facing"]]
    here = 0j
    for step in re.split(r", | and ", made["legs"]):
        if step.startswith("turns"):
            facing *= {"right": -1j, "left": 1j, "round": -1}[step.split()[1]]
        else:
            here += facing * int(step.split()[1])
    return int(here.real), int(here.imag)


def _measured(small: int, large: int) -> set[int]:
    """Every amount that one of two jugs can hold, by trying all fillings, emptyings and pourings."""
    seen, waiting = {(0, 0)}, [(0, 0)]
    while waiting:
        a, b = waiting.pop()
        over, back = min(a, large - b), min(b, small - a)
        for state in ((small, b), (a, large), (0, b), (a, 0), (a - over, b + over), (a + back, b - back)):
            if state not in seen:
                seen.add(state)
                waiting.append(state)
    return {amount for state in seen for amount in state}


def test_numbers_come_out_whole() -> None:
    tickets, mixture, rectangle, cubic = (drawn(name) for name in ("tickets_sold", "mixture", "rectangle", "cubic"))
    for _ in range(40):
        made = tickets()
        adults, rest = divmod(made["income"] - made["child"] * made["total"], made["adult"] - made["child"])
        assert rest == 0 and 0 < adults < made["total"]
        made = mixture()
        added, rest = divmod(made["volume"] * (made["target"] - made["low"]), made["high"] - made["target"])
        assert rest == 0 and added > 0
        made = rectangle()
        assert math.isqrt(made["more"] ** 2 + 4 * made["area"]) ** 2 == made["more"] ** 2 + 4 * made["area"]
        made = cubic()
        slope, value = _cubic(made["polynomial"])
        turning = [x for x in range(-20, 21) if slope(x) == 0]
        assert len(turning) == 2 and made["level"] in map(value, turning)


def _cubic(written: str) -> tuple[Callable[[int], int], Callable[[int], int]]:
    factors = {0: 0, 1: 0, 2: 0, 3: 0}
    for sign, size, letter, power in re.findall(r"([+-]?) ?(\d*)(x?)\^?(\d?)", written):
        if size or letter:
            factors[int(power or 1) if letter else 0] = int(size or 1) * (-1 if sign == "-" else 1)
    return (
        lambda x: 3 * factors[3] * x * x + 2 * factors[2] * x + factors[1],
        lambda x: factors[3] * x**3 + factors[2] * x * x + factors[1] * x + factors[0],
    )


def test_liars_and_grids_are_settled() -> None:
    liars, grid = drawn("liars"), drawn("grid")
    for _ in range(20):
        made = liars()
        names = re.split(r", | and ", made["people"])
        said = re.findall(r'(\w+) says: "([^"]+)"', made["statements"])
        kinds = [[bool(number >> place & 1) for place in range(3)] for number in range(8)]
        assert (
            sum(all(_true(text, name, names, kind) == kind[names.index(name)] for name, text in said) for kind in kinds)
            == 1
        )
        made = grid()
        people, things, days = (re.split(r", | and ", made[key]) for key in ("people", "things", "days"))
        fitting = [
            (have, come)
            for have in permutations(things)
            for come in permutations(range(4))
            if all(_agrees(clue, people, have, come, days) for clue in _clues(made))
        ]
        assert len(fitting) == 1


def _true(text: str, speaker: str, names: list[str], kind: Sequence[bool]) -> bool:
    told = [kind[names.index(name)] for name in re.findall(r"\w+", text) if name in names]
    liars = kind.count(False)
    for start, value in (
        ("Exactly one", liars == 1),
        ("Exactly two", liars == 2),
        ("At least", not all(told)),
        ("I am of", bool(told) and kind[names.index(speaker)] == told[0]),
        ("If", bool(told) and (not told[0] or told[-1])),
    ):
        if text.startswith(start):
            return value
    if "same kind" in text:
        return told[0] == told[1]
    return told[0] is ("truth" in text)


def _agrees(clue: str, people: list[str], have: Sequence[str], come: Sequence[int], days: list[str]) -> bool:
    who = next((place for place, name in enumerate(people) if name in clue), -1)
    thing = next((place for place, what in enumerate(have) if what in clue), -1)
    day = next((number for number, name in enumerate(days) if name in clue), -1)
    if "does not have" in clue:
        return thing != who
    if "does not come" in clue:
        return come[who] != day
    return come[thing] == day if "Whoever" in clue else come[who] < come[thing]


@pytest.mark.parametrize(
    ("maker", "named"),
    [("companies", "place"), ("minutes", "who"), ("logs", "service"), ("flats", "budget"), ("tickets", "number"),
     ("books", "year"), ("contract", "tenant")],
)  # fmt: skip
def test_what_a_follow_up_names_stands_in_the_passage(maker: str, named: str) -> None:
    draw = drawn(maker)
    for _ in range(20):
        made = draw()
        assert str(made[named]) in made["passage"] and "{" not in made["passage"]


# --- MT-Bench itself ---


def test_no_built_in_question_is_one_of_mt_bench() -> None:
    assert len(official()) == 160 and all(re.fullmatch("[0-9a-f]{16}", one) for one in official())
    turns = {turn for category in CATEGORIES for question in bank(category, EACH) for turn in question.turns}
    assert not official() & set(map(fingerprint, turns))
    assert fingerprint("Why -- is THAT?") == fingerprint("why is that") != fingerprint("why that is")


def test_the_real_questions_are_known_and_refused(real_data: Path) -> None:
    path = real_data / "mt_bench" / "question.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    texts = [turn for row in rows for turn in row["turns"]]
    assert official() == set(map(fingerprint, texts))
    with pytest.raises(InputError, match=r"row 1: .* belongs to MT-Bench's own questions") as error:
        build("s", source(id=str(path), categories=["coding"]))
    assert "\n" not in str(error.value)
    drafts = build("s", source(questions=8 * EACH)).pairs
    assert len(drafts) == 16 * EACH
    assert Overlap(texts).reasons(drafts) == [None] * len(drafts)
    require_not_evaluated(drafts, texts, "s")


def test_a_file_with_one_evaluated_turn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"category": "stem", "turns": [f"Why is {thing} blue?", f"And red {thing}?"]} for thing in ("ice", "sky")]
    path = file_of(tmp_path / "asked.jsonl", rows)
    assert len(build("s", source(id=path)).pairs) == 4
    monkeypatch.setattr(mt_bench_style, "official", lambda: frozenset({fingerprint("and RED sky")}))
    with pytest.raises(InputError, match=r"^source s: .*asked.jsonl: row 2: 'And red sky\?' belongs to MT-Bench's"):
        build("s", source(id=path, turns=1, categories=["math"]))


def test_a_question_of_the_evaluation_is_named() -> None:
    drafts = build("s", source(questions=16)).pairs
    second, question = drafts[5].prompt[2].content, drafts[4].prompt[0].content
    require_not_evaluated(drafts, [second, "Something else?"], "s")
    with pytest.raises(InputError, match="source s: the recipe evaluates on the question") as error:
        require_not_evaluated(drafts, [question.upper().replace(",", " ")], "s")
    assert question[:50] in str(error.value) and "\n" not in str(error.value)


# --- drafts ---


def test_built_in_questions_are_spread_over_the_categories() -> None:
    built = build("s", source(questions=20, categories=["stem", "math", "coding"]))
    assert (built.rows, built.dropped, len(built.pairs)) == (40, {}, 40)
    asked = {question.turns[0]: category for category in CATEGORIES for question in bank(category, 7)}
    assert Counter(asked[draft.prompt[0].content] for draft in built.pairs[::2]) == {"coding": 7, "math": 7, "stem": 6}
    for first, second in zip(built.pairs[::2], built.pairs[1::2], strict=True):
        question = next(q for q in bank(asked[first.prompt[0].content], 7) if q.turns[0] == first.prompt[0].content)
        assert first.prompt == (Message("user", question.turns[0]),)
        assert second.prompt == (*first.prompt, Message("assistant", ""), Message("user", question.turns[1]))
        assert first.group == second.group
    assert len({draft.group for draft in built.pairs}) == 20
    assert {(draft.chosen, draft.rejected, draft.domain, draft.source) for draft in built.pairs} == {
        ("", "", "mt_bench", "s")
    }


def test_one_turn_and_a_limit() -> None:
    every = build("s", source(questions=40)).pairs
    single = build("s", source(questions=40, turns=1))
    assert single.pairs == every[::2] and single.rows == 40
    few = build("s", source(questions=40, limit=7))
    assert len(few.pairs) == 7 and few.dropped == {"over the limit": 73} and few.rows == 80
    assert [len(draft.prompt) for draft in few.pairs] == [1, 3, 1, 3, 1, 3, 1] and set(few.pairs) < set(every)


def test_a_file_is_read_and_its_bad_rows_are_counted(tmp_path: Path) -> None:
    good = [{"category": "math", "turns": [f" What is {n} + {n}? ", "Double it.", "Again."]} for n in range(6)]
    bad: list[dict[str, Any]] = [
        {"category": "math", "turns": ["What is 1 + 1?", "Halve it."]},
        {"category": "poetry", "turns": ["A poem.", "Another one."]},
        {"category": "math", "turns": ["Only one?"]},
        {"category": "math", "turns": ["What is this?", " "]},
        {"category": "math", "turns": "What is this?"},
        {"category": "math", "turns": ["What is this?", 5]},
        {"category": None, "turns": ["What is this?", "And that?"]},
        {"category": "math", "turns": ["x" * 60, "y" * 50]},
    ]
    path = file_of(tmp_path / "asked.jsonl", good + bad)
    built = build("s", source(id=path, max_malformed=0.5, max_chars=100))
    assert built.dropped == {
        "category not asked": 2, "duplicate question": 2, "empty prompt": 2, "missing value": 2, "too few turns": 2,
        "too long": 2, "wrong type": 4,
    }  # fmt: skip
    assert len(built.pairs) == 12 and built.rows == 28 == 12 + sum(built.dropped.values())
    assert [message.content for message in built.pairs[1].prompt] == ["What is 0 + 0?", "", "Double it."]
    assert build("s", source(id=path, rows=2)).pairs == built.pairs[:4]
    with pytest.raises(InputError, match="source s: 5 of 14 rows are malformed"):
        build("s", source(id=path))
    with pytest.raises(InputError, match="no column 'turns'"):
        build("s", source(id=file_of(tmp_path / "other.jsonl", [{"category": "math", "prompt": ["a", "b"]}])))


def test_the_world_has_questions_too() -> None:
    built = build("s", source(id="pocket", rows=50))
    assert built.rows == 100 and len(built.pairs) > 80


# --- pairs ---


class Policies:
    """Policies that answer with `say(user turns, place of the policy)`; `asked` holds what each call was given."""

    def __init__(self, say: Callable[[list[str], int], Answer]) -> None:
        self.say = say
        self.asked: list[tuple[int, float, int, int, list[tuple[Message, ...]]]] = []

    def policy(self, spec: MtBenchStyleSource) -> Callable[[Policy | None], Any]:
        def get(policy: Policy | None) -> Any:
            assert policy is not None
            return _Policy(self, spec.policies.index(policy))

        return get


class _Policy:
    def __init__(self, all: Policies, place: int) -> None:
        self.all, self.place = all, place

    def generate(
        self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, temperature: float, seed: int, progress: Any
    ) -> list[Answer]:
        given = [tuple(prompt) for prompt in prompts]
        self.all.asked.append((self.place, temperature, seed, max_new_tokens, given))
        return [self.all.say([m.content for m in prompt if m.role == "user"], self.place) for prompt in given]


def shop(spec: MtBenchStyleSource, policies: Policies, wanted: int, **options: Any) -> Workshop:
    return Workshop(
        wanted=wanted,
        usable=options.get("usable", lambda pair: None),
        generator=policies.policy(spec),
        judge=LastWord,
        progress=options.get("progress", lambda label, done, total: None),
    )


def drafts_of(tmp_path: Path, count: int, turns: int = 2) -> list[Pair]:
    rows = [{"category": "stem", "turns": [f"First {n}", f"Second {n}"]} for n in range(count)]
    return build("s", source(id=file_of(tmp_path / "asked.jsonl", rows), turns=turns)).pairs


def numbered(turns: list[str]) -> int:
    return int(turns[0].split()[1])


def test_the_second_turn_is_asked_after_the_better_first_answer(tmp_path: Path) -> None:
    spec = source(
        policies=[{}, {"temperature": 0.7}, {"temperature": 1.0}], ranking={"min_gap": 0.0, "max_new_tokens": 9}
    )
    worth = {1: [2, 5, 3], 2: [4, 1, 9]}
    policies = Policies(lambda turns, place: answer(f"{turns[-1]} by {place}: {worth[len(turns)][place]}"))
    drafts = drafts_of(tmp_path, 3)
    found = finish("s", spec, drafts, shop(spec, policies, wanted=6))
    assert found.dropped == {} and {pair.group for pair in found.pairs} == {draft.group for draft in drafts}
    ones = {pair.prompt[0].content: pair for pair in found.pairs if len(pair.prompt) == 1}
    twos = {pair.prompt[0].content: pair for pair in found.pairs if len(pair.prompt) == 3}
    for number in range(3):
        one, two = ones[f"First {number}"], twos[f"First {number}"]
        assert (one.chosen, one.rejected) == (f"First {number} by 1: 5", f"First {number} by 0: 2")
        assert [(m.role, m.content) for m in two.prompt] == [
            ("user", f"First {number}"), ("assistant", one.chosen), ("user", f"Second {number}"),
        ]  # fmt: skip
        assert (two.chosen, two.rejected) == (f"Second {number} by 2: 9", f"Second {number} by 1: 1")
        assert (one.reward_gap, two.reward_gap, one.group) == (3.0, 8.0, two.group)
    assert [asked[:4] for asked in policies.asked[:3]] == [
        (place, temperature, sample_seed(0, place), 9) for place, temperature in enumerate([0.0, 0.7, 1.0])
    ]
    assert found.spread == pytest.approx(
        math.sqrt((3 * ((2 - 10 / 3) ** 2 + (5 - 10 / 3) ** 2 + (3 - 10 / 3) ** 2)) / 8)
    )


def test_without_a_first_pair_there_is_no_second(tmp_path: Path) -> None:
    def say(turns: list[str], place: int) -> Answer:
        if turns[0] == "First 0":
            return answer("equal 1")
        if turns[-1] == "Second 1":
            return Answer("cut 5", 2, cut_off=True)
        return answer(f"{place} {place}")

    def usable(pair: Pair) -> str | None:
        return "no room" if pair.prompt[-1].content in ("First 2", "Second 3") else None

    spec = source(ranking={"min_gap": 0.0})
    drafts = drafts_of(tmp_path, 5)
    found = finish("s", spec, [*drafts[:8], drafts[9]], shop(spec, policies := Policies(say), 99, usable=usable))
    assert found.dropped == {"all samples equal": 1, "cut off": 1, "no pair of its first turn": 3, "no room": 2}
    assert {pair.prompt[-1].content for pair in found.pairs} == {"First 1", "First 3"}
    asked = {prompt[-1].content for call in policies.asked for prompt in call[-1]}
    assert asked == {"First 0", "First 1", "First 2", "First 3", "Second 1", "Second 3"}


def test_it_ends_when_there_is_enough(tmp_path: Path) -> None:
    spec = source(ranking={"min_gap": 0.0, "batch_size": 20})
    drafts = drafts_of(tmp_path, 90)
    say = Policies(lambda turns, place: answer(f"{turns[-1]} {place * (1 + numbered(turns) % 3)}"))
    small = finish("s", spec, drafts, shop(spec, say, wanted=30))
    assert len(small.pairs) == 40 and small.dropped == {"not needed": 140}
    assert sum(len(call[-1]) for call in say.asked if len(call[-1][0]) == 1) == 2 * 40  # 64 rewards need two chunks
    large = finish("s", spec, drafts, shop(spec, say, wanted=100))
    assert large.pairs[:40] == small.pairs and large.spread == small.spread
    assert len(large.pairs) == 120 and large.dropped == {"not needed": 60}
    assert finish("s", spec, drafts, shop(spec, say, wanted=0)).pairs == []


def test_the_first_pairs_are_of_both_turns(tmp_path: Path) -> None:
    """Stages draw generated pairs as they come: question by question, not all first turns of a chunk first."""
    spec = source(ranking={"min_gap": 0.0, "batch_size": 20})
    say = Policies(lambda turns, place: answer(f"{turns[-1]} {place}" if numbered(turns) % 3 else "same 1"))
    found = finish("s", spec, drafts_of(tmp_path, 40), shop(spec, say, wanted=40)).pairs
    assert [len(pair.prompt) for pair in found[:8]] == [1, 3] * 4
    assert all(one.prompt[0] == two.prompt[0] for one, two in zip(found[::2], found[1::2], strict=True))


def test_progress_counts_pairs_and_ends_once(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    spec = source(ranking={"min_gap": 0.0, "batch_size": 40})
    say = Policies(lambda turns, place: answer(f"{place} {place}"))
    work = shop(spec, say, wanted=50, progress=lambda *one: told.append(one))
    assert len(finish("s", spec, drafts_of(tmp_path, 90), work).pairs) == 80
    done = [one for _, one, _ in told]
    assert {(label, total) for label, _, total in told} == {("s: pairs", 50)}
    assert done == sorted(done) and 40 in done and done.count(50) == 1


@pytest.mark.parametrize("most", [1, 5, 33])
@pytest.mark.parametrize("turns", [1, 2])
def test_no_more_prompts_than_asked(tmp_path: Path, most: int, turns: int) -> None:
    spec = source(turns=turns, ranking={"min_gap": 0.0, "batch_size": 8, "max_prompts": most})
    drafts = drafts_of(tmp_path, 40, turns)
    policies = Policies(lambda turns, place: answer(f"{place} {place}"))
    found = finish("s", spec, drafts, shop(spec, policies, wanted=1000))
    assert len(found.pairs) == most == sum(len(call[-1]) for call in policies.asked if call[0] == 0)
    assert found.dropped == {"beyond max_prompts": 40 * turns - most}


def test_real_models_rank_both_turns(tmp_path: Path) -> None:
    loaded = load_policy(ModelSpec(id=str(make_policy(tmp_path / "policy"))), torch.device("cpu"))
    ends = [token for token in range(len(loaded.tokenizer)) if not loaded.tokenizer.decode([token]).isascii()]
    loaded.model.generation_config.eos_token_id = [*ends, loaded.tokenizer.eos_token_id]
    folder = make_reward(tmp_path / "reward")
    spec = source(
        policies=[{"temperature": 1.0}, {"temperature": 1.2}],
        ranking={"min_gap": 0.0, "batch_size": 8, "max_new_tokens": 12},
    )
    drafts = drafts_of(tmp_path, 24)
    store = Store(tmp_path / "store")

    def made() -> Any:
        work = Workshop(
            wanted=20,
            usable=lambda pair: None,
            generator=lambda policy: TransformersGenerator(loaded, identity="policy", batch_size=4, store=store),
            judge=lambda: RewardModel(RewardSpec(id=str(folder), sanity="warn"), store=store),
        )
        return finish("s", spec, drafts, work)

    found = made()
    assert made() == found  # from the store
    assert len(found.pairs) + sum(found.dropped.values()) == len(drafts)
    twos = [pair for pair in found.pairs if len(pair.prompt) == 3]
    ones = {pair.prompt[0]: pair for pair in found.pairs if len(pair.prompt) == 1}
    assert twos and len(ones) >= len(twos)
    for pair in twos:
        assert pair.prompt[1] == Message("assistant", ones[pair.prompt[0]].chosen)
    assert all(pair.reward_gap and pair.chosen != pair.rejected for pair in found.pairs)
