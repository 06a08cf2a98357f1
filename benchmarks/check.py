"""Do both sides train the same thing? `dpo_step.py --check` runs this, fp32, and fails where they do not.

One batch, two optimiser steps from the same adapter weights: step 1 has loss ln 2 and a gradient through B alone
(B starts at 0), step 2 a loss that depends on the update, and a gradient through A and B.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import equipoise_side
import torch
import trl_side
from job import Trained
from workload import PROFILES, SHAPES, make_pairs

PAIRS = 4
PLAIN = trl_side.Setting(torch.float32, options={"bf16": False, "gradient_checkpointing": False})
TOLERANCE = 1e-3
TOLERANCE_AFTER_UPDATE = 1e-2  # Adam's first step is the gradient's sign: rounding decides it where that is near 0


def main() -> int:
    """Train on every side, print what came out, and return the exit code."""
    model, shape, device = sys.argv[1:4]
    pairs = make_pairs(PROFILES["short"], PAIRS, PAIRS, SHAPES[shape].vocab, seed=3)
    ours = equipoise_side.Side(model, device, dtype="float32")
    results = {"equipoise": ours.train(pairs, PAIRS, epochs=2)}
    # The forced head comes last: forcing is for the rest of the process.
    for name, setting in (("trl", PLAIN), ("trl, answer-only head", replace(PLAIN, forced=True))):
        results[name] = trl_side.Side(setting, model, device).train(pairs, PAIRS, 2, ours.first_adapter)
    for name, trained in results.items():
        print(f"{name:22} losses {trained.losses}, gradient norms {trained.norms}")
    theirs = results["trl"]
    wrong = [name for name, trained in results.items() if not _agrees(trained, theirs)]
    print(f"differs from TRL: {', '.join(wrong)}" if wrong else "all agree")
    return 1 if wrong else 0


def _agrees(one: Trained, other: Trained) -> bool:
    return (
        abs(one.losses[0] - math.log(2)) < TOLERANCE * math.log(2)
        and math.isclose(one.norms[0], other.norms[0], rel_tol=TOLERANCE)
        and math.isclose(one.losses[1], other.losses[1], rel_tol=TOLERANCE_AFTER_UPDATE)
        and math.isclose(one.norms[1], other.norms[1], rel_tol=TOLERANCE_AFTER_UPDATE)
    )


if __name__ == "__main__":
    sys.exit(main())
