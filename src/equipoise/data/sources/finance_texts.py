"""Which rows of a finance data set are worth asking: rules over words, each with its meaning written down. Pure."""

from __future__ import annotations

import re
from itertools import pairwise

from equipoise.data.amounts import amounts, is_marked
from equipoise.data.words import words

# Words are compared without a final s, which leaves "taxes" as "taxe" and "Dow Jones" as "dow jone".
_STRONG_WORDS = """
    finance financial financially financing dividend mortgage ebit ebitda roi roe etf ipo gaap ifrs hedge hedging fund
    shareholder stockholder bondholder treasury invest invested investing investment investor portfolio broker brokerage
    banking bankruptcy creditworthiness annuity amortization amortize depreciation liquidity inflation deflation
    cryptocurrency bitcoin forex commodity accounting auditor nasdaq nyse
"""
_STRONG_PAIRS = """
    10-k 10-q sec-filing stock-market stock-price stock-exchange stock-split stock-option common-stock preferred-stock
    government-bond corporate-bond interest-rate interest-expense interest-income interest-payment interest-coverage
    compound-interest compounded-interest exchange-rate discount-rate tax-rate coupon-rate loan-rate balance-sheet
    income-statement cash-flow net-income net-profit net-loss net-worth present-value gross-margin gross-profit
    gross-income earning-per e-ratio working-capital capital-gain capital-expenditure capital-structure credit-card
    credit-score credit-rating credit-risk credit-default saving-account checking-account retirement-account
    retirement-plan retirement-saving 401-k 403-b account-payable account-receivable leverage-ratio monetary-policy
    fiscal-policy fiscal-year fiscal-quarter central-bank federal-reserve p-500 dow-jone wall-street bear-market
    bull-market derivative-market
"""
_WEAK_WORDS = """
    money bank loan debt fee tax taxe taxable taxation income revenue profit profitable profitability earning expense
    asset liability liabilitie equity share stock bond currency currencie dollar euro usd salary salarie wage insurance
    premium credit lend lender lending borrow borrowed borrower borrowing economy valuation
"""
_NEIGHBOURS = """
    price priced pricing cost budget sale market trade trading trader save saved saving pay payment company companie
    firm economic quarter quarterly million billion yield return capital owe afford spend spending purchase purchased
"""
_STRONG = frozenset(_STRONG_WORDS.split())
_PAIRS = frozenset(tuple(pair.split("-")) for pair in _STRONG_PAIRS.split())
_WEAK = frozenset(_WEAK_WORDS.split())
_OFTEN_NEAR = frozenset(_NEIGHBOURS.split())
_CURRENCY = re.compile(r"[$€£¥₹]\s?\d|\b(?:USD|EUR|GBP)\s?\d")

_REASONING = re.compile(
    r"\b(?:explain(?:ed|s|ing)?|explanation|why|how\s+(?:does|do|did|can|could|would|should|might|will|is|are|has|have)|"
    r"how\s+(?:much|many)|what\s+(?:if|happens?|would|causes?|factors)|compar(?:e|ed|ing|ison)|contrast|"
    r"differen(?:ce|ces|tiate)|distinguish|versus|vs|analy[sz](?:e|es|ing|is)|calculat(?:e|es|ing|ion)|comput(?:e|es|ing)|"
    r"evaluat(?:e|es|ing)|assess(?:es|ing)?|discuss(?:es|ing)?|deriv(?:e|es|ing)|estimat(?:e|es|ing)|determin(?:e|es|ing)|"
    r"justify|reason(?:s|ing)?|implications?|impacts?|effects?\s+of|affects?|influences?|pros\s+and\s+cons|advantages|"
    r"disadvantages|trade-?offs?|strateg(?:y|ies)|recommend|step[\s-]by[\s-]step|describe\s+how|forecast|"
    r"percentage\s+change|show\s+your)\b",
    re.IGNORECASE,
)
_PART = re.compile(r"(?:^|\s)\(?(?:[a-e]|[ivx]{1,4}|[1-9])[.)]\s+\S", re.MULTILINE)
_CLASSIFYING = re.compile(
    r"\b(?:sentiment|classify|categori[sz]e|label)\b.{0,200}\b(?:positive|negative|neutral|bullish|bearish|category|categories"
    r"|class|classes|options?)\b|\b(?:true\s+or\s+false|yes\s+or\s+no|multiple\s+choice)\b",
    re.IGNORECASE | re.DOTALL,
)

_LABEL_WORDS = """
    positive negative neutral bullish bearish hawkish dovish mixed mildly moderately strongly slightly very somewhat
    strong weak high medium low good bad buy sell hold yes no not true false correct none unknown other na n a b c d e f
    up down rise fall increase decrease unchanged relevant irrelevant entailment contradiction fraud legitimate
    option choice class category label sentiment answer the is
"""
_LABELS = frozenset(_LABEL_WORDS.split())
MOST_LABEL_WORDS, LONGEST_LABEL, LONGEST_WORD = 5, 100, 30
"""Words and characters of a label, and characters of one word: other scripts write sentences without spaces."""
_LETTERS = re.compile(r"[^\W\d_]+")
_BARE_NUMBER = re.compile(r"[^\w]*[0-9][0-9.,]*[^\w]*")
_NUMBER_ASKED = re.compile(
    r"\bhow\s+(?:much|many|long|old|large|high|big|far)\b|\b(?:calculate|compute|find|determine|estimate)\b|"
    r"\bwhat\s+(?:is|was|are|were|will\s+be|would\s+be|percent(?:age)?|proportion|amount|share)\b[^.?!]*\b(?:amounts?|totals?|"
    r"sums?|number|percent(?:age)?|rate|ratio|value|price|cost|averages?|mean|change|difference|increase|decrease|return|"
    r"yield|growth|margin|revenues?|income|profit|loss|expenses?|earnings|eps|interest|balance|npv|irr|payment|tax|"
    r"proportion|share|sales)\b|\bin\s+(?:thousands|millions|billions|percent)\b",
    re.IGNORECASE,
)


def is_financial(question: str, answer: str) -> bool:
    """Whether a row speaks of money.

    One term that hardly stands for anything else is enough ("dividend", "balance sheet", "interest rate"). A word that
    may stand for something else ("bank", "share") needs company: another such word, one that is often near ("price",
    "market"), or an amount in a currency. Terms are whole words, with or without a plural s; "interest" alone is none.
    """
    both = f"{question}\n{answer}"
    said = [_singular(word) for word in words(both)]
    different = frozenset(said)
    if not _STRONG.isdisjoint(different):
        return True
    weak = len(_WEAK & different)
    if weak > 1 or (weak and (not _OFTEN_NEAR.isdisjoint(different) or _CURRENCY.search(both))):
        return True
    return not _PAIRS.isdisjoint(pairwise(said))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def is_complex(question: str) -> bool:
    """Whether a question asks for reasoning, a calculation, an explanation or a comparison, or has several parts.

    It does where it has a word that asks for one ("why", "calculate", "difference between"), at least two question
    marks, or two numbered parts. A question that asks to choose among given classes never does.
    """
    if _CLASSIFYING.search(question):
        return False
    return bool(_REASONING.search(question)) or question.count("?") > 1 or len(_PART.findall(question)) > 1


def is_label(answer: str, *, numbers: bool = True) -> bool:
    """Whether an answer is a bare label: one word, or a few words that are all names of classes ("mildly positive").

    `numbers` says whether a bare number ("5", "12.5%") is one as well.
    """
    if len(answer) > LONGEST_LABEL:
        return False
    if _BARE_NUMBER.fullmatch(answer):
        return numbers
    found = [word.lower() for word in _LETTERS.findall(answer)]
    if amounts(answer):
        return False
    if len(found) < 2:
        return len(answer) <= LONGEST_WORD
    return len(found) <= MOST_LABEL_WORDS and _LABELS.issuperset(found)


def number_is_asked(question: str, answer: str) -> bool:
    """Whether the answer to a question is a number: the question asks for one, or the answer says that it is one."""
    return bool(amounts(answer)) and (is_marked(answer) or bool(_NUMBER_ASKED.search(question)))
