"""Word pools of the synthetic world.

Every word here is one token of the pocket tokenizer (with its leading space): a small model can copy a token,
but not spell a word that it never saw whole. For each kind of prompt the pools are cut in two: one part is used in
training prompts of that kind, the other in evaluation prompts of that kind alone.
"""

from __future__ import annotations

import hashlib
from functools import cache


def _pool(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _pool(
    "anna ben carl dana emma finn gina hugo iris jack kate leo mona nina omar paul rosa sam tina vera "
    "adam beth cole dora eric fay glen hana ivan judy kurt lena marc nora otto pia ruth sven wanda zoe"
)
FIRMS = _pool(
    "acorn alder anchor arrow aspen beacon birch breeze canyon cedar cliff cobalt comet coral crest delta ember "
    "falcon fern garnet glacier harbor hazel heron ivy jade juniper lark linden lotus lunar maple meadow nova "
    "onyx opal orchid otter pearl raven"
)
THINGS = _pool(
    "lamp chair boat bike drum tent piano laptop phone camera guitar kayak sofa desk oven fridge mower printer "
    "scooter van ladder mirror carpet kettle apple pear plum lemon melon bread cheese honey river road tower bridge "
    "candle basket hammer pillow blanket bottle garden window violin wagon cabin saddle"
)
COLOURS = _pool("red blue green white black brown pink grey gold silver")
PLACES = _pool(
    "paris rome oslo lima cairo delhi tokyo berlin madrid vienna dublin prague warsaw athens boston dallas denver "
    "miami austin toronto sydney perth seoul osaka milan turin lyon geneva zurich lisbon"
)
GOALS = _pool("wedding holiday school house roof kitchen trip party course move surgery baby degree tour shop farm")

# Table world.
ITEMS = _pool(
    "revenue costs profit sales rent wages taxes assets debt cash stock fees interest goods energy freight travel "
    "insurance pensions repairs research marketing training services licences royalties dividends reserves goodwill "
    "patents leases loans"
)
UNSEEN_ITEMS = _pool("grants bonuses audits storage catering security cleaning postage legal software")
PRODUCTS = _pool(
    "lamps chairs boats bikes pumps tyres doors phones cables ovens tents drones bricks boots coats clocks pianos "
    "radios scales shelves tools toys trucks valves wheels windows motors mixers mowers helmets"
)
CURRENCIES = _pool("euros dollars pounds francs yen kroner")
MONTHS = _pool("january february march april may june july august september october november december")
CAUSE_KINDS = _pool("strong weak rising falling lower higher slow fast new poor heavy mild")
CAUSE_NOUNS = _pool("demand prices exports orders traffic weather supply trade growth imports hiring rates")
SCALES = ("", "thousand", "million")
YEARS = tuple(str(year) for year in range(2010, 2026))
NUMBERS = tuple(str(number) for number in range(100))
COUNT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

CHAT_POOLS: dict[str, tuple[str, ...]] = {
    "names": NAMES,
    "firms": FIRMS,
    "things": THINGS,
    "places": PLACES,
    "goals": GOALS,
}

_CHAT_WORDS = (*NAMES, *FIRMS, *THINGS, *COLOURS, *PLACES, *GOALS)
_TABLE_WORDS = (*ITEMS, *UNSEEN_ITEMS, *PRODUCTS, *CURRENCIES, *MONTHS, *CAUSE_KINDS, *CAUSE_NOUNS, *SCALES[1:])
ALL_WORDS: tuple[str, ...] = tuple(dict.fromkeys((*_CHAT_WORDS, *_TABLE_WORDS, "percent", *COUNT_WORDS)))


@cache
def chat_pool(name: str, kind: str, held_out: bool) -> tuple[str, ...]:
    """The words of a pool that prompts of this kind use in training (70%), or those that only its evaluation uses.

    Which words are held out differs from kind to kind, so that every word is said somewhere in training: an
    evaluation prompt is about a topic (kind and word) that was never asked, in words that are known.
    """
    pool = sorted(CHAT_POOLS[name], key=lambda word: hashlib.sha256(f"{kind} {word}".encode()).digest())
    cut = len(pool) * 7 // 10
    return tuple(pool[cut:] if held_out else pool[:cut])
