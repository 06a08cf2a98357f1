"""The embedded default: a tiny real model, its tokenizer, a reward model and a synthetic world.

Nothing heavy is imported here; the weights are plain files beside this module.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FINGERPRINT = "fingerprint.json"
BOUND_FILES = ("tokenizer.json", "chat_template.jinja", "model.safetensors", "config.json")
"""Files that belong to one build: exchanging any of them gives gibberish without an error."""


def model_dir() -> Path:
    """Folder of the causal model with its tokenizer."""
    return _weights() / "model"


def reward_dir() -> Path:
    """Folder of the reward model, its tokenizer, `calibration.json` and `sanity.json`."""
    return _weights() / "reward"


def fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that belongs to the build."""
    missing = [name for name in BOUND_FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: {missing[0]} is missing; this is not a complete pocket build")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in BOUND_FILES}


def stamp(folder: Path) -> None:
    """Write the fingerprint of the files as they are."""
    (folder / FINGERPRINT).write_text(json.dumps(fingerprint(folder), indent=2) + "\n", encoding="utf-8")


def verify(folder: Path) -> None:
    """Raise ValueError, in one line, when tokenizer, template and weights are not those of one build."""
    path = folder / FINGERPRINT
    if not path.is_file():
        raise ValueError(f"{folder}: {FINGERPRINT} is missing; tokenizer and weights cannot be matched")
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON; tokenizer and weights cannot be matched") from error
    changed = [name for name, digest in fingerprint(folder).items() if kept.get(name) != digest]
    if changed:
        raise ValueError(
            f"{folder}: {', '.join(changed)} does not belong to this build (other SHA-256); rebuild or reinstall"
        )


def _weights() -> Path:
    return Path(__file__).parent / "weights"
