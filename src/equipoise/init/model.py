"""What can be known of a model without fetching or loading it: its size, its positions, its tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.init.answers import is_hub
from equipoise.model.load import model_config, model_folder, policy_tokenizer
from equipoise.model.memory import shape_of
from equipoise.recipe_parts import ModelSpec
from equipoise.records import Pair

SAMPLED = 100
"""So many pairs of a source tell how long its texts are in tokens."""

_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Facts:
    """Parameters and longest sequence, where they are known; `here`: it need not be fetched."""

    parameters: int | None
    positions: int | None
    here: bool

    def told(self) -> str:
        """The size in words."""
        if self.parameters is None:
            return "of unknown size"
        if self.parameters < 1_000_000_000:
            return f"of about {self.parameters / 1e6:.3g} million parameters"
        return f"of about {self.parameters / 1e9:.2g} billion parameters"


def facts(id: str) -> Facts:
    """Facts about a local model from its configuration, about a hub model from its name.

    Raises InputError where a folder holds no model.
    """
    if is_hub(id) and not Path(id).is_dir():
        return Facts(size_in(id), None, here=False)
    config = model_config(model_folder(id, None, what="--model"), "--model")
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Facts(shape_of(config).parameters, positions, here=True)


def bytes_per_token(id: str, pairs: Sequence[Pair]) -> float:
    """How many bytes of these pairs a token of a local model stands for, by their own texts."""
    tokenizer = policy_tokenizer(ModelSpec(id=id))
    texts = [text for pair in pairs for text in (pair.prompt[-1].content, pair.chosen, pair.rejected)]
    tokens = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    return sum(len(text.encode("utf-8", "replace")) for text in texts) / max(1, tokens)


def size_in(id: str) -> int | None:
    """Parameters that a name speaks of: 1.7 billion in `Qwen/Qwen3-1.7B`; None where it says nothing."""
    found = _SIZE.findall(id.rpartition("/")[2])
    if not found:
        return None
    number, unit = found[0]
    return int(float(number) * (1_000_000_000 if unit.lower() == "b" else 1_000_000))
