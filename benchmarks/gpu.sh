#!/bin/sh
# DPO speed and memory of TRL and equipoise on one CUDA GPU, with a random Qwen3-1.7B that is made here; under 8 minutes.
# Needs a python with torch (CUDA), transformers, trl, peft, accelerate and datasets; nothing is downloaded.
#   PYTHON=/path/to/python sh benchmarks/gpu.sh [options of dpo_step.py]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
export PYTHONPATH="$here/../src${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

"$python" - <<'CHECK'
import importlib.util
import sys

needed = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "pydantic")
missing = [name for name in needed if importlib.util.find_spec(name) is None]
if missing:
    print(f"gpu.sh: {sys.executable} has no {', '.join(missing)}; set PYTHON to one that has", file=sys.stderr)
    sys.exit(2)
import torch

if not torch.cuda.is_available():
    print(f"gpu.sh: torch {torch.__version__} of {sys.executable} finds no CUDA GPU", file=sys.stderr)
    sys.exit(2)
CHECK

# The result is written after every measurement, so that what was done by the time limit is kept.
out="$here/results/gpu.json"
status=0
timeout 470 "$python" "$here/dpo_step.py" --device cuda --model qwen3-1.7b --batch 64 --pairs 64 --slow-pairs 64 \
    --repeats 1 --profiles long chat --settings trl_default trl_best equipoise --out "$out" "$@" || status=$?
if [ "$status" -eq 124 ]; then
    echo "gpu.sh: stopped at the time limit of 470 s; done by then:" >&2
    "$python" "$here/table.py" "$out"
fi
exit "$status"
