"""Which language a text is in, and whether an answer left the language of its question.

Models that were trained too hard sometimes answer an English question in Chinese, or change the language in the
middle. Two looks: at the script of the letters, which is sure, and, for texts of one script, at the language that
langdetect finds, where both texts are long enough for it to be all but certain. A question that asks for a
translation counts as a switch before and after training alike: look at the difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any

SHARE = 0.1
"""An answer has switched where at least this share of its letters is of a script that its question does not have."""
LETTERS = {"CJK": 4, "HIRAGANA": 4, "KATAKANA": 4, "HANGUL": 4}
"""So many letters of a script are no mere quotation; one of these writes a syllable or a word."""
LETTERS_ELSE = 12
CERTAIN = 0.99
WORDS = 20
"""Shorter texts are too short to tell languages of one script apart."""
_FUNCTION_WORDS = """
    the of and to a in is that it for on you this with are be as at or not have by from can will your if an was
"""
ENGLISH = frozenset(_FUNCTION_WORDS.split())
ENGLISH_SHARE = 0.2
"""Text with at least this share of English function words is English: no need to ask langdetect, which is slow."""

_CODE = re.compile(r"```.*?(```|$)|`[^`\n]*`|https?://\S+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")


def switches(question: str, answer: str) -> bool:
    """Return whether (part of) an answer is in another script, or all of it in another language, than its question."""
    if not any(map(str.isalpha, question)):
        return False
    said = _CODE.sub(" ", answer)
    if not said.isascii() and _foreign_script(question, said):
        return True
    language = _certain_language(said)
    return language is not None and _certain_language(_CODE.sub(" ", question)) not in (language, None)


def _foreign_script(question: str, answer: str) -> bool:
    asked, said = _scripts(question), _scripts(answer)
    letters = sum(said.values())
    return any(
        count >= max(LETTERS.get(script, LETTERS_ELSE), SHARE * letters) and script not in asked
        for script, count in said.items()
    )


def _scripts(text: str) -> Counter[str]:
    """How many letters of each script a text has."""
    letters = Counter(character for character in text if character.isalpha())
    found: Counter[str] = Counter()
    for letter, count in letters.items():
        found["LATIN" if letter.isascii() else unicodedata.name(letter, "UNKNOWN").partition(" ")[0]] += count
    return found


@lru_cache(maxsize=4096)
def _certain_language(text: str) -> str | None:
    words = [word.lower() for word in _WORD.findall(text)]
    if len(words) < WORDS:
        return None
    if sum(word in ENGLISH for word in words) >= ENGLISH_SHARE * len(words):
        return "en"
    found = _probabilities(text)
    return found[0].lang.partition("-")[0] if found and found[0].prob >= CERTAIN else None


def detect_language(text: str) -> str | None:
    """The language that langdetect finds, in ISO 639-1 (`zh-cn`, `zh-tw` for Chinese), or `unknown`; None: no letters.

    langdetect draws random numbers; each call starts from seed 0, so equal texts have equal answers. It looks
    at the first 10,000 characters.
    """
    found = _probabilities(text)
    if found is None:
        return None
    return str(found[0].lang) if found else "unknown"


def _probabilities(text: str) -> list[Any] | None:
    """Languages with their probabilities, the most likely first; None for a text without letters."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _language_profiles().create()
    detector.append(text)
    try:
        return list(detector.get_probabilities())
    except LangDetectException:
        return None


@lru_cache(maxsize=1)
def _language_profiles() -> Any:
    """langdetect's profiles in a factory of our own: the seed of the shared one belongs to other users."""
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.seed = 0
    return factory
