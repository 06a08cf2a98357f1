"""Word pools of the synthetic world.

Every word here is one token of the pocket tokenizer (with its leading space): a small model can copy a token,
but not spell a word that it never saw whole. Each chat pool is cut in two by position: the first part is used in
training prompts, the rest appears in evaluation prompts alone.
"""

from __future__ import annotations


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
    "names": NAMES, "firms": FIRMS, "things": THINGS, "places": PLACES, "goals": GOALS,
}  # fmt: skip

ALL_WORDS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [*NAMES, *FIRMS, *THINGS, *COLOURS, *PLACES, *GOALS, *ITEMS, *UNSEEN_ITEMS, *PRODUCTS, *CURRENCIES]
        + [*MONTHS, *CAUSE_KINDS, *CAUSE_NOUNS, *SCALES[1:], "percent", *COUNT_WORDS]
    )
)


def chat_pool(name: str, held_out: bool) -> tuple[str, ...]:
    """The training part (first 70%) or the held-out part of one chat pool."""
    pool = CHAT_POOLS[name]
    cut = len(pool) * 7 // 10
    return pool[cut:] if held_out else pool[:cut]
