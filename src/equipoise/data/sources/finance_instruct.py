"""Kind `finance_instruct`: questions with one reference answer each, as in Josephgflowers/Finance-Instruct-500k.

The data set has no worse answers. Where they come from is the recipe's choice (`rejected`): the model's own samples,
the best against the worst by reward; one sample against the reference; the reference with one thing in it made wrong;
or samples whose number is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from equipoise.data.amounts import agreement
from equipoise.data.built import Built, Dropped, collect, column, draft, optional_text, pair, text
from equipoise.data.prompts import system_and_user
from equipoise.data.read import source_rows
from equipoise.data.sampling import Made, compared_pairs, ranked_pairs
from equipoise.data.sources.corrupt import corrupt
from equipoise.data.sources.finance_texts import is_complex, is_financial, is_label, number_is_asked
from equipoise.data.words import words
from equipoise.data.workshop import Finished, Workshop
from equipoise.recipe import FinanceInstructSource
from equipoise.records import Pair

COLUMNS = ("system", "user", "assistant")


def build(name: str, spec: FinanceInstructSource) -> Built:
    """One draft for each distinct question that passes the filters; whole pairs where `rejected` is `corrupted`."""
    asked: set[bytes] = set()
    rows = source_rows(name, spec, COLUMNS, pocket="finance")
    return collect(name, spec, rows, lambda row: convert(row, name, spec, asked))


def convert(row: Mapping[str, Any], name: str, spec: FinanceInstructSource, asked: set[bytes]) -> Pair:
    """The draft (or pair) of one row; raises Dropped where it has none. `asked` remembers the questions so far."""
    question, answer = (text(column(row, side), side) for side in ("user", "assistant"))
    prompt = system_and_user(optional_text(row, "system"), question)
    group = row.get("group") if isinstance(row.get("group"), str) else None
    made = draft(prompt, answer, spec=spec, name=name, group=group)
    if not answer:
        raise Dropped("empty answer", "assistant")
    reason = unwanted(question, answer, spec)
    if reason is not None:
        raise Dropped(reason, malformed=False)
    key = hashlib.blake2b(" ".join(words(question) or [question]).encode(), digest_size=16).digest()
    if key in asked:
        raise Dropped("duplicate question", malformed=False)
    asked.add(key)
    if spec.rejected != "corrupted":
        return made
    wrong = corrupt(answer)
    if wrong is None:
        raise Dropped("nothing to corrupt", malformed=False)
    return pair(prompt, answer, wrong.text, spec=spec, name=name, group=group)


def unwanted(question: str, answer: str, spec: FinanceInstructSource) -> str | None:
    """The first filter that a row does not pass, or None."""
    by_number = spec.rejected == "correctness"
    if len(question) < spec.min_question_chars:
        return "question too short"
    if len(question) > spec.max_question_chars:
        return "question too long"
    if len(answer) < spec.min_answer_chars:
        return "answer too short"
    if len(answer) > spec.max_answer_chars:
        return "answer too long"
    if spec.drop_labels and is_label(answer, numbers=not by_number):
        return "answer is a label"
    if spec.finance_only and not is_financial(question, answer):
        return "not about finance"
    if spec.complexity_filter and not is_complex(question):
        return "question too simple"
    if by_number and not number_is_asked(question, answer):
        return "answer is no number"
    return None


def finish(name: str, spec: FinanceInstructSource, drafts: Sequence[Pair], workshop: Workshop) -> Finished:
    """The pairs that the model's own answers make of drafts."""
    sampling = spec.sampling
    if spec.rejected == "reference_vs_sample":
        return compared_pairs(name, sampling, drafts, workshop, against_reference, samples=1)
    if spec.rejected == "correctness":
        return compared_pairs(name, sampling, drafts, workshop, by_number, samples=sampling.samples)
    return ranked_pairs(name, sampling, drafts, workshop)


def against_reference(draft: Pair, samples: Sequence[str]) -> Made:
    """The reference answer is better than the sample, whatever they say: the rule of the original program."""
    same = samples[0] == draft.chosen
    return "sample equals the reference" if same else replace(draft, rejected=samples[0])


def by_number(draft: Pair, samples: Sequence[str]) -> Made:
    """A sample with the reference's number (else the reference itself) against one whose number is wrong."""
    found = [(agreement(sample, draft.chosen), sample) for sample in samples]
    wrong = next((sample for verdict, sample in found if verdict == "wrong"), None)
    if wrong is None:
        return "every sample is right" if all(verdict == "right" for verdict, _ in found) else "no sample surely wrong"
    right = next((sample for verdict, sample in found if verdict == "right"), draft.chosen)
    return replace(draft, chosen=right, rejected=wrong)
