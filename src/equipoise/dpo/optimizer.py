"""The optimisers of a stage: torch's AdamW, or those of bitsandbytes with moments in 8 bits."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib import import_module
from itertools import chain
from typing import Any

import torch

from equipoise.recipe import Optim
from equipoise.records import InputError

BITSANDBYTES = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}
"""Names in a recipe -> classes in `bitsandbytes.optim` (Dettmers et al. 2022, block-wise 8-bit optimisers)."""
FUSED_ON = ("cpu", "cuda")
"""Devices on which torch's fused AdamW gives the same bits on every run, for any number of threads."""
EIGHT_BIT_FROM = 4096
"""Elements from which bitsandbytes keeps a tensor's moments in 8 bits; smaller tensors keep 32."""


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]], optim: Optim
) -> torch.optim.Optimizer:
    """The optimiser that the recipe names, at its highest learning rate; betas 0.9 and 0.999, epsilon 1e-8.

    `parameters` are parameters, or groups of them (`params`) with a learning rate each (`lr`), as torch takes them.
    Fused where the device has it: one kernel in place of a dozen, faster on a CPU as well. Its state lives where the
    parameter lives, the step counter included. Raises InputError where bitsandbytes is missing.
    """
    trained: list[Any] = list(parameters)
    if optim.optimizer == "adamw":
        every = chain.from_iterable(one["params"] if isinstance(one, dict) else [one] for one in trained)
        fused = all(parameter.device.type in FUSED_ON for parameter in every)
        return torch.optim.AdamW(
            trained, lr=optim.learning_rate, weight_decay=optim.weight_decay, fused=True if fused else None
        )
    kind = getattr(_bitsandbytes(optim.optimizer, "optim.optimizer").optim, BITSANDBYTES[optim.optimizer])
    made: torch.optim.Optimizer = kind(trained, lr=optim.learning_rate, weight_decay=optim.weight_decay)
    return made


def require_optimizer(optim: Optim, where: str, device: torch.device | None = None) -> None:
    """Raise InputError, with one line that begins with `where`, if the optimiser does not work on `device`.

    Whether a version of bitsandbytes serves a device is not written anywhere, so one step of one tensor is done.
    `device` is CUDA where there is one, if it is not given.
    """
    if optim.optimizer == "adamw":
        return
    _bitsandbytes(optim.optimizer, f"{where}.optimizer")
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tensor = torch.nn.Parameter(torch.ones(EIGHT_BIT_FROM, device=device))
    tensor.grad = torch.ones_like(tensor)
    try:
        make_optimizer([tensor], optim).step()
    except (RuntimeError, ValueError, AttributeError, TypeError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{where}.optimizer: {optim.optimizer} does not work on {device.type} with the installed bitsandbytes "
            f"({reason}); upgrade it, or use adamw"
        ) from None


def _bitsandbytes(name: str, where: str) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"{where}: {name} needs bitsandbytes: pip install 'equipoise[quant]', or use adamw")
    return import_module("bitsandbytes")
