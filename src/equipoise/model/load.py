"""Model, tokenizer, precision and quantisation, in one place; safetensors only."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from equipoise.model.chat import require_template, require_thinking_off
from equipoise.recipe import ModelSpec, RewardSpec
from equipoise.records import InputError, content_id
from equipoise.run_folder import sha256

ONE_THREAD_BELOW = 20_000_000
"""Parameters below which a model runs on one CPU thread: threads cost it more than they give, and its results
then do not depend on the number of cores."""
FILES = ("*.json", "*.jinja", "*.safetensors", "*.model", "*.txt", "*.py")


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer and the identity of their content."""

    model: Any
    tokenizer: Any
    identity: str
    device: torch.device


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def surroundings(device: torch.device) -> list[str]:
    """What the last bits of a computation depend on beside its code: the device and the libraries."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return [name, torch.__version__, transformers.__version__]


def model_folder(id: str, revision: str | None, *, what: str, embedded: str = "model") -> Path:
    """Folder of a model: a local one, the embedded one (`pocket`), or a snapshot of a hub id.

    Raises InputError where there is none, it cannot be read, or the hub does not answer.
    """
    if id == "pocket":
        pocket = import_module("equipoise.pocket")
        return _of_one_build(Path(pocket.model_dir() if embedded == "model" else pocket.reward_dir()), what)
    folder = Path(id).expanduser()
    if folder.is_dir():
        return _of_one_build(folder, what)
    if id.startswith((".", "/", "~")) or id.count("/") != 1:
        raise InputError(f"{what}: {id}: no such folder")
    return _snapshot(id, revision, what)


def _of_one_build(folder: Path, what: str) -> Path:
    """A folder with a fingerprint must hold the tokenizer and the weights of one build; raises InputError."""
    path = folder / "fingerprint.json"
    if path.is_file() and "model.safetensors" in path.read_text(encoding="utf-8", errors="replace"):
        try:
            import_module("equipoise.pocket").verify(folder)
        except ValueError as error:
            raise InputError(f"{what}: {error}") from None
    return folder


def _snapshot(id: str, revision: str | None, what: str) -> Path:
    try:
        return Path(snapshot_download(id, revision=revision, allow_patterns=list(FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{what}: {id}: the hub did not deliver this model ({reason}); offline, download it elsewhere and give "
            f"the folder as id"
        ) from None


def model_config(folder: Path, what: str, *, trust_remote_code: bool = False) -> Any:
    """The configuration of a model folder; raises InputError where it cannot be read."""
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{what}: {folder}: not a model folder: {_first_line(error)}") from None


def load_policy(spec: ModelSpec, device: torch.device | None = None) -> Loaded:
    """Load the model to be trained, its weights frozen, in eval mode."""
    device = device or default_device()
    folder = model_folder(spec.id, spec.revision, what="model.id")
    dtype = _dtype(spec.dtype, device)
    extra = _nf4(device, dtype) if spec.quantization else {}
    model = _load(transformers.AutoModelForCausalLM.from_pretrained, folder, "model.id", spec, dtype, extra)
    tokenizer = policy_tokenizer(spec)
    if spec.quantization:
        _without_packing(model)
    else:
        model.to(device)
    model.requires_grad_(False)
    model.eval()
    _use_threads(model, device)
    return Loaded(model, tokenizer, policy_identity(spec, device), device)


def policy_identity(spec: ModelSpec, device: torch.device) -> str:
    """Identity of a policy as it is loaded on `device`, without loading it."""
    folder = model_folder(spec.id, spec.revision, what="model.id")
    return content_id([folder_identity(folder), str(_dtype(spec.dtype, device)), spec.quantization])


def load_classifier(spec: RewardSpec, device: torch.device | None = None) -> tuple[Loaded, Path]:
    """Load a reward model (sequence classification, one logit) and return it with its folder."""
    device = device or default_device()
    folder = model_folder(spec.id, spec.revision, what="reward.id", embedded="reward")
    config = model_config(folder, "reward.id", trust_remote_code=spec.trust_remote_code)
    if config.num_labels != 1:
        raise InputError(
            f"reward.id: {spec.id}: its head has {config.num_labels} outputs; a reward model has one (num_labels: 1)"
        )
    dtype = _dtype("auto", device)
    model = _load(transformers.AutoModelForSequenceClassification.from_pretrained, folder, "reward.id", spec, dtype, {})
    tokenizer = load_tokenizer(folder, "reward.id", thinking=True, trust_remote_code=spec.trust_remote_code)
    model.to(device).requires_grad_(False)
    model.eval()
    return Loaded(model, tokenizer, classifier_identity(spec, device), device), folder


def classifier_identity(spec: RewardSpec, device: torch.device) -> str:
    """Identity of a reward model as it is loaded on `device`, without loading it."""
    folder = model_folder(spec.id, spec.revision, what="reward.id", embedded="reward")
    return content_id([folder_identity(folder), str(_dtype("auto", device)), spec.max_length])


def policy_tokenizer(spec: ModelSpec) -> Any:
    """The tokenizer of the model to be trained, without the model."""
    folder = model_folder(spec.id, spec.revision, what="model.id")
    return load_tokenizer(folder, "model.id", thinking=spec.thinking, trust_remote_code=spec.trust_remote_code)


def load_tokenizer(folder: Path, what: str, *, thinking: bool = False, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder, with a chat template and a padding token."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{what}: {folder}: no readable tokenizer: {_first_line(error)}") from None
    require_template(tokenizer, f"{what}: {folder}")
    if not thinking:
        require_thinking_off(tokenizer, f"{what}: {folder}")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _use_threads(model: Any, device: torch.device) -> None:
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ and model.num_parameters() < ONE_THREAD_BELOW:
        torch.set_num_threads(1)


def folder_identity(folder: Path) -> str:
    """Identity of a model's content: weights, configuration, tokenizer and chat template, by their bytes."""
    files = sorted(path for pattern in FILES for path in folder.glob(pattern) if path.name != "README.md")
    return content_id({path.name: _sha256_once(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files})


@lru_cache(maxsize=256)
def _sha256_once(path: Path, size: int, modified: int) -> str:
    """A large file is hashed once in a process, and again where its size or time has changed."""
    return sha256(path)


def _load(
    from_pretrained: Callable[..., Any],
    folder: Path,
    what: str,
    spec: ModelSpec | RewardSpec,
    dtype: torch.dtype,
    extra: dict[str, Any],
) -> Any:
    if not list(folder.glob("*.safetensors")):
        raise InputError(f"{what}: {folder}: no .safetensors weights (other formats are not loaded: they can run code)")
    _require_whole(folder, what)
    config = model_config(folder, what, trust_remote_code=spec.trust_remote_code)
    try:
        model, report = from_pretrained(
            folder,
            output_loading_info=True,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=spec.trust_remote_code,
            attn_implementation=_attention(config),
            **extra,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{what}: {folder}: the model cannot be loaded: {_first_line(error)}") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"{what}: {folder}: the weights lack {', '.join(missing[:3])}; they would be random")
    return model


def _require_whole(folder: Path, what: str) -> None:
    """Raises InputError where a weight file is missing or was cut short (a download that broke off)."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        needed = set(json.loads(index.read_text())["weight_map"].values())
        missing = sorted(name for name in needed if not (folder / name).is_file())
        if missing:
            raise InputError(f"{what}: {folder}: weight files are missing: {', '.join(missing)}; download them again")
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = file.read(size) if 0 < size < path.stat().st_size else b""
        try:
            ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError):
            ends = []
        if not ends or 8 + size + max(ends) != path.stat().st_size:
            raise InputError(f"{what}: {path}: damaged or cut short; download it again")


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _nf4(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` needs to load in 4 bits (NF4 with double quantisation, Dettmers et al. 2023, QLoRA).

    Raises InputError where bitsandbytes is missing; what it cannot do on `device` it says itself while loading.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "model.quantization: nf4 needs bitsandbytes: pip install 'equipoise[quant]', or leave it out here"
        )
    if device.type == "cpu":
        print("equipoise: model.quantization: nf4 on a CPU saves memory but is slower than no quantisation, since "
              "every use of a weight unpacks it", file=sys.stderr)  # fmt: skip
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _without_packing(model: torch.nn.Module) -> None:
    """Keep 4-bit layers on a CPU in the form through which gradients flow.

    On CPUs with AVX512-BF16 bitsandbytes repacks a layer for inference as soon as it runs in eval mode on an input
    without gradient, and from then on its product has no backward pass: adapters below it would get no gradient
    through it, silently, once the reference has been computed. It also rounds to bf16, whatever the model's dtype.
    """
    for module in model.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            vars(module)["support_avx512bf16_for_cpu"] = False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _attention(config: Any) -> str:
    """`sdpa` has no soft cap on its logits; a model that caps them (Gemma 2) keeps its own code."""
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else "sdpa"
