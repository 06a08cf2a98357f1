"""The real preference files through their sources: what each one gives, and what is dropped for which reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from equipoise.data.clean import clean
from equipoise.data.read import read_rows
from equipoise.data.sources import build
from equipoise.recipe import Columns, HhSource, OrcaSource, TableSource

Counts = dict[str, int]


def _source(name: str, folder: Path) -> HhSource | OrcaSource | TableSource:
    path = {
        "hh": "hh_rlhf_harmless_base_test_part.jsonl.gz",
        "orca": "orca_style_pairs_sample.jsonl.gz",
        "demo": "dpo_en_demo.json",
        "llmbar": "llmbar.jsonl.gz",
        "pandalm": "pandalm_human_pairs_part.jsonl.gz",
    }[name]
    id = str(folder / "preferences" / path)
    if name == "hh":
        return HhSource(kind="hh", id=id)
    if name == "orca":
        return OrcaSource(kind="orca", id=id)
    columns = {
        "demo": Columns(prompt="conversations", chosen="chosen", rejected="rejected"),
        "llmbar": Columns(prompt="input", first="output_1", second="output_2", label="label"),
        "pandalm": Columns(
            prompt=["instruction", "input"], first="response1", second="response2",
            label=["annotator1", "annotator2", "annotator3"],
        ),
    }  # fmt: skip
    return TableSource(kind="table", domain="general", id=id, columns=columns[name])


@pytest.mark.parametrize(
    ("name", "rows", "dropped", "cleaned", "left"),
    [
        ("hh", 1513, {"prompts differ": 4, "empty answer": 2}, {}, 1507),
        # One row (in both files) has dashes that were read in another encoding: two of three characters are controls.
        ("orca", 80, {"broken unicode": 1}, {}, 79),
        ("demo", 300, {"broken unicode": 1}, {"exact duplicate": 5}, 294),
        ("llmbar", 419, {}, {"prompt of the evaluation": 2, "13 words of the evaluation": 1}, 416),
        ("pandalm", 593, {"wrong type": 6, "empty answer": 16, "tie": 63},
         {"exact duplicate": 42, "near duplicate": 17}, 449),
    ],
)  # fmt: skip
def test_real_files(real_data: Path, name: str, rows: int, dropped: Counts, cleaned: Counts, left: int) -> None:
    built = build(name, _source(name, real_data))
    assert (built.rows, built.dropped) == (rows, dict(sorted(dropped.items())))
    assert built.rows == len(built.pairs) + sum(built.dropped.values())
    questions = [turn for row in read_rows(str(real_data / "mt_bench/question.jsonl")) for turn in row["turns"]]
    kept, reasons = clean(built.pairs, evaluation_texts=questions)
    assert (len(kept), reasons) == (left, cleaned)


def test_real_dialogues_keep_their_words_and_turns(real_data: Path) -> None:
    spec = _source("hh", real_data)
    pairs = build("hh", spec).pairs
    turns = [sum(message.role == "user" for message in pair.prompt) for pair in pairs]
    assert max(turns) > 5 and sum(count > 1 for count in turns) > 700
    for pair in pairs:
        roles = [message.role for message in pair.prompt]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    # The same by another way: what stands before the last reply, compared word by word.
    sound = []
    for row in read_rows(spec.id):
        (asked, chosen), (other, rejected) = (row[side].rsplit("\n\nAssistant:", 1) for side in ("chosen", "rejected"))
        if asked == other and chosen.strip() and rejected.strip():
            sound.append((re.split(r"\s+", re.sub(r"\n\n(Human|Assistant):", " ", asked).strip()), chosen, rejected))
    assert len(sound) == len(pairs)
    for pair, (asked, chosen, rejected) in zip(pairs, sound, strict=True):
        assert " ".join(message.content for message in pair.prompt).split() == asked
        assert (pair.chosen, pair.rejected) == (chosen.strip(), rejected.strip())
