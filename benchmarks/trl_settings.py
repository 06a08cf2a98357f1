"""The TRL settings, and what was tried for the best one.

`trl_default` is the documented default: fp32 weights, bf16 autocast, gradient checkpointing, reference computed at
every step. `trl_best` is the fastest that documented options gave on the CPU, `trl_forced` adds the answer-only head.
`dtype` is the precision that multiplies matrices faster on the machine: bf16 with AMX or on a GPU; a CPU without AMX
can be slower in bf16 than in fp32, and then TRL's bf16 default costs it dearly.

Tried on 8 pairs (4 where said), TRL 1.16, small model, 1 thread of a Xeon with AVX512 and without AMX; one run each,
other work on the machine, so differences below a fifth say nothing. Pairs/s of the whole call; the reference is
precomputed and checkpointing off unless it is the default:

- default, long: 0.095; bf16 weights: 0.108 long; the same without autocast: 0.089.
- malloc told to keep freed memory (`job.ENVIRONMENT`): 0.148 long (from 0.108): taken. Next to nothing with the
  forced head (0.247 from 0.251).
- fp32 without autocast, that malloc, 4 pairs, chat: 0.166 (bf16 under the same load: 0.110): taken where it is faster.
- 2 pairs per forward pass, grouped by length (`train_sampling_strategy` works with a `length` column and
  `remove_unused_columns=False`): 0.153 long with 1.5 times the memory: within noise, not taken. 4 per pass: 0.076 long
  before malloc's change, 0.135 chat after it (one per pass: 0.230), at more than twice the memory.
- eager attention: chat 0.104 against 0.110, short 0.105 against 0.107 (4 pairs): no gain.
- torch_compile: 3 passes over 8 pairs of long had not ended after 400 s (about 80 s without it).
- padding_free: accepted and switched off by TRL with a warning.
"""

from __future__ import annotations

import torch
from trl_side import Setting


def setting(name: str, dtype: str) -> Setting:
    """The setting `trl_default`, `trl_best` or `trl_forced`; `dtype` counts for the last two."""
    if name == "trl_default":
        return Setting(torch.float32)
    options = {"precompute_ref_log_probs": True, "gradient_checkpointing": False, "bf16": dtype == "bfloat16"}
    return Setting(getattr(torch, dtype), forced=name == "trl_forced", options=options)
