"""Writing a batch: prompts that are read in groups give what each prompt gives alone, in every kind of cache."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from equipoise.model import write as writing
from equipoise.model.load import Loaded
from equipoise.model.write import Settings, _equal_groups, _groups, write
from models import SERVED, make_decoder

torch.set_num_threads(1)
CPU = torch.device("cpu")
NAMES = ["qwen3", "qwen3 with windows", "mistral", "gemma2", "gemma3", "phi3", "smollm3", "gpt2"]


def decoder(name: str) -> Loaded:
    """In 64 bits, so that nothing is nearly a tie; not Gemma 2, whose attention is written for 32 bits or less."""
    prefix, options = SERVED[name]
    model = make_decoder(prefix, torch.float32 if name == "gemma2" else torch.float64, **options)
    return Loaded(model, SimpleNamespace(pad_token_id=0), name, CPU)


def prompts() -> list[tuple[int, ...]]:
    """Random prompts, some shorter and some longer than the windows (16)."""
    source = torch.Generator().manual_seed(0)
    return [tuple(torch.randint(3, 300, (n,), generator=source).tolist()) for n in (2, 3, 9, 12, 15, 17, 18, 40)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tokens", [1, 40, 1024], ids=["one by one", "in groups", "at once"])
def test_groups_of_prompts_give_what_each_gives_alone(name: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "READ_TOKENS_CPU", tokens)
    loaded = decoder(name)
    batch = prompts()
    written = write(loaded, batch, Settings(9, 0.0, 0), frozenset())
    assert len({tuple(answer) for answer in written}) > 1
    for ids, answer in zip(batch, written, strict=True):
        alone = loaded.model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=9, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        assert answer == alone[0, len(ids) :].tolist()


@pytest.mark.parametrize("name", ["qwen3", "gemma2"])
def test_a_fixed_shape_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "READ_TOKENS_CPU", 100)
    loaded = decoder(name)
    settings = Settings(9, 0.0, 0)
    assert write(loaded, prompts(), settings, frozenset(), 48) == write(loaded, prompts(), settings, frozenset())


def test_groups() -> None:
    def sizes(groups: Any) -> list[list[int]]:
        return [[len(ids) for ids in group] for group in groups]

    batch = [(0,) * n for n in (2, 3, 3, 5, 20, 4)]
    assert sizes(_groups(batch, 10)) == [[2, 3, 3], [5], [20], [4]]
    assert sizes(_groups(batch, 1000)) == [[2, 3, 3, 5, 20, 4]]
    assert [len(group) for group in _equal_groups(batch, 4)] == [3, 3]
    assert [len(group) for group in _equal_groups(batch, 1)] == [1] * 6
    assert [len(group) for group in _equal_groups(batch[:5], 4)] == [1] * 5
