"""Whether a stage fits into memory as asked, and how it trains where it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from equipoise.dpo.forecast import StageForecast
from equipoise.dpo.packing import padded_length, token_budget
from equipoise.model.chat import EncodedPair
from equipoise.model.load import Loaded
from equipoise.model.memory import SHARE, Choice, machine_memory, rough_bytes, shape_of, weight_bytes
from equipoise.recipe import ModelSpec, Stage


def fit(
    policy: Loaded,
    spec: ModelSpec,
    stage: Stage,
    pairs: Sequence[EncodedPair],
    *,
    earlier: Sequence[int],
    seed: int,
    available: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Choice:
    """Tokens per forward pass, and whether layers are recomputed, within `available` bytes (default: the machine's).

    `earlier` are the parameters of each earlier adapter. Where even a generous estimate fits easily nothing is
    traced; what is changed is said.
    """
    available = machine_memory() if available is None else available
    config: Any = policy.model.config
    shape, dtype = shape_of(config, trust_remote_code=spec.trust_remote_code), policy.model.dtype
    asked = token_budget(stage.optim.micro_batch_tokens, policy.device.type)
    tokens = max(asked, 2 * max(map(padded_length, pairs)))
    generous = sum(rough_bytes(shape, tokens=tokens, answer_tokens=tokens, dtype_bytes=dtype.itemsize))
    if weight_bytes(shape, dtype.itemsize, spec.quantization) + generous < SHARE * available / 2:
        return Choice(asked, checkpointing=False, fits=True)
    forecast = StageForecast(
        config, shape, spec, stage, pairs, seed=seed, dtype=dtype, device=policy.device.type, earlier=earlier
    )
    choice = forecast.choose(available)
    if choice.tokens < asked or choice.checkpointing:
        how = "layers are computed again in the backward pass, " * choice.checkpointing
        say(f"{stage.name}: to fit into memory, {how}{choice.tokens} tokens per forward pass")
    if not choice.fits:
        need = forecast.parts(choice.tokens, choice.checkpointing).total
        say(
            f"{stage.name}: warning: {need / 2**30:.1f} GiB are forecast and {available / 2**30:.1f} are there; "
            f"training will probably run out of memory"
        )
    return choice
