"""Speed and memory of TRL and equipoise, side by side: `python benchmarks/dpo_step.py` (options: --help).

Both train the same LoRA-DPO on the same token ids, alternating, every measurement in a process of its own. The
whole call is timed: reference pass, forward, backward, clipping, optimiser, logging; not imports, model loading,
tokenisation and the adapter's creation. `trl_settings.py` says what each TRL setting is and what was tried for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import table
from job import ENVIRONMENT, SETTINGS, SLOW, Job
from processes import HERE, run_python
from workload import MAX_LENGTH, MAX_PROMPT, PROFILES, SHAPES, SIGMA_ANSWER, SIGMA_PROMPT

RESULT = HERE / "results" / "dpo_step.json"
DTYPE_HELP = "precision of all settings but trl_default; auto: whichever multiplies matrices faster on this machine"
LOSS_TOLERANCE = 5e-3  # of ln 2 at step 1; bf16 rounds a policy's and its reference's log-probabilities apart


def main() -> None:
    """Run what the command line asks for and print the table."""
    parser = _parser()
    options = parser.parse_args()
    default = vars(options) == vars(parser.parse_args([]))
    out = options.out or (RESULT if default else None)
    _fill_in(parser, options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(folder / "model")
        run_python("random_model.py", model, options.model, options.device, threads=options.threads)
        if options.check:
            print(run_python("check.py", model, options.model, options.device, threads=options.threads))
            return
        result = _start(options)
        for setting, profile, measured in _measurements(options, folder, result["settings"]["run"]["dtype"]):
            _add(result, setting, profile, measured, result["settings"]["run"]["pairs"][setting])
            if options.out:
                _write(options.out, result)
    if out:
        _write(out, result)
    print(f"\n{table.markdown(result)}\n\n{f'written: {out}' if out else 'not written: give --out to keep it'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), default=list(PROFILES))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--pairs", type=int, default=32, help="pairs per measurement, whole batches")
    parser.add_argument("--repeats", type=int, default=3, help="measurements per setting and profile")
    parser.add_argument("--batch", type=int, default=16, help="pairs per optimiser step")
    parser.add_argument("--slow-pairs", type=int, default=16, help=f"the same for {', '.join(SLOW)}")
    parser.add_argument("--slow-repeats", type=int, default=1, help=f"the same for {', '.join(SLOW)}")
    parser.add_argument("--warm-up-pairs", type=int, default=3, help="pairs of the untimed call before")
    parser.add_argument("--threads", type=int, default=None, help="default: every core that this process may use")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", choices=list(SHAPES), default="small", help="size of the random model")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help=DTYPE_HELP)
    parser.add_argument("--quick", action="store_true", help="one batch of 4 pairs, once")
    parser.add_argument("--check", action="store_true", help="compare losses and gradients in fp32 instead")
    parser.add_argument("--out", type=Path, help="result file; without it only a run without options is written")
    return parser


def _fill_in(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.quick:
        options.pairs = options.slow_pairs = options.batch = 4
        options.repeats = options.slow_repeats = 1
    if options.threads is None:
        options.threads = len(os.sched_getaffinity(0))
    if options.pairs % options.batch or options.slow_pairs % options.batch:
        parser.error(f"--pairs and --slow-pairs must be multiples of --batch ({options.batch})")


def _start(options: argparse.Namespace) -> dict[str, Any]:
    """The result before the first measurement."""
    about = json.loads(run_python("machine.py", options.device, threads=options.threads))
    machine = about["machine"]
    faster = "bfloat16" if machine["bf16_gflops"] > machine["fp32_gflops"] else "float32"
    dtype = faster if options.dtype == "auto" else options.dtype
    counts = {name: options.slow_pairs if name in SLOW else options.pairs for name in options.settings}
    run = {name: getattr(options, name) for name in ("model", "device", "batch", "repeats", "slow_repeats", "threads")}
    lengths = {"max_length": MAX_LENGTH, "max_prompt": MAX_PROMPT, "sigma": [SIGMA_PROMPT, SIGMA_ANSWER]}
    return {"profiles": {}, **about, "settings": {"run": {**run, "dtype": dtype, "pairs": counts, **lengths}}}


def _measurements(options: argparse.Namespace, folder: Path, dtype: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Measure, the settings alternating, so that a slow minute of the machine does not hit one side alone."""
    for profile in options.profiles:
        for repeat in range(max(options.repeats, options.slow_repeats)):
            for setting in options.settings:
                slow = setting in SLOW
                if repeat >= (options.slow_repeats if slow else options.repeats):
                    continue
                pairs = options.slow_pairs if slow else options.pairs
                job = Job(
                    setting=setting,
                    profile=profile,
                    model=str(folder / "model"),
                    vocab=SHAPES[options.model].vocab,
                    pairs=pairs,
                    batch=options.batch,
                    warm_up_pairs=options.warm_up_pairs,
                    device=options.device,
                    dtype=dtype,
                )
                yield setting, profile, _measure(options, job, folder)


def _measure(options: argparse.Namespace, job: Job, folder: Path) -> dict[str, Any]:
    asked, answer = folder / "job.json", folder / "measured.json"
    asked.write_text(json.dumps(dataclasses.asdict(job)))
    started = time.monotonic()
    environment = ENVIRONMENT.get(job.setting, {})
    run_python("worker.py", str(asked), str(answer), threads=options.threads, environment=environment)
    measured: dict[str, Any] = json.loads(answer.read_text())
    trained = measured["trained"]
    if abs(trained["losses"][0] - math.log(2)) > LOSS_TOLERANCE:
        sys.exit(f"dpo_step: {job.setting} on {job.profile}: the first loss is {trained['losses'][0]}, not ln 2")
    print(
        f"{job.profile:6} {job.setting:12} {job.pairs} pairs: reference {trained['reference_s']:.1f} s, training "
        f"{trained['training_s']:.1f} s, peak {measured['peak_mb']:.0f} MB, losses {trained['losses']}, "
        f"gradient norms {trained['norms']} ({time.monotonic() - started:.0f} s in all)",
        flush=True,
    )
    return measured


def _add(result: dict[str, Any], setting: str, profile: str, measured: dict[str, Any], pairs: int) -> None:
    """Append a measurement's speeds; of memory and warm-up the largest value is kept."""
    empty = {"pairs_per_s": [], "training_pairs_per_s": [], "peak_mb": 0.0, "above_start_mb": 0.0, "warm_up_s": 0.0}
    entry = result["profiles"].setdefault(profile, {}).setdefault(setting, empty)
    trained = measured["trained"]
    entry["pairs_per_s"].append(round(pairs / (trained["reference_s"] + trained["training_s"]), 4))
    entry["training_pairs_per_s"].append(round(pairs / trained["training_s"], 4))
    for name in ("peak_mb", "above_start_mb", "warm_up_s"):
        entry[name] = max(entry[name], round(measured[name], 1))
    result["settings"][setting] = measured["options"]


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
