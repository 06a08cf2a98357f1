"""Gradient checkpointing: only a layer's input is kept, and the layer is computed again in the backward pass.

It costs about one more forward pass, so it is for models that do not fit otherwise (`model.memory.choose`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def recomputed(model: Any) -> Iterator[int]:
    """Within this context decoder layers are recomputed; yields how many there are.

    The layers' own switch is not used: it asks for `training`, and some layers would then drop out.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=True)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward
