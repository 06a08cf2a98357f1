"""The LoRA stack: frozen adapters of earlier stages, and those that a stage trains: one, or one for each domain.

Every stage's adapter is a plain PEFT adapter in a folder of its own; several of one stage are folders in one folder,
as PEFT itself saves several. Earlier ones are loaded frozen and stay active beside the new ones, so nothing is merged
into the base weights: a 4-bit base stays as it is, and going back to an earlier stage means leaving an adapter out.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from equipoise.model.load import Loaded
from equipoise.recipe import Lora
from equipoise.recipe_lora import DomainLora, adapters_of
from equipoise.records import InputError, content_id
from equipoise.run_folder import read_json, sha256

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The two files of a plain PEFT adapter."""
TRAINED = "default"
"""PEFT's name of the adapter that is trained; PEFT saves this one at the top of a folder. Adapters of domains have
names that no domain, layer or earlier adapter has (`_name`)."""


def parts(folder: Path) -> list[Path]:
    """The plain adapters of an adapter folder: itself, or one for each domain, by name; none where it has none.

    A folder of nothing but a trainer's checkpoints (`checkpoint-100`) has none: those are states of one adapter.
    """
    if (folder / CONFIG).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    return [] if all(re.fullmatch(r"checkpoint-\d+", path.name) for path in found) else found


def each(stack: Sequence[Path]) -> list[Path]:
    """Every plain adapter of a stack, in order; raises InputError where a folder holds none."""
    for folder in stack:
        require_adapter(folder)
    return [part for folder in stack for part in parts(folder)]


def stack_identity(loaded: Loaded, stack: Sequence[Path]) -> str:
    """Identity of a base model with adapters: two stacks of the same content have the same identity.

    Raises InputError where a folder holds no adapter.
    """
    return content_id([loaded.identity, [[sha256(part / name) for name in (CONFIG, WEIGHTS)] for part in each(stack)]])


def attach(loaded: Loaded, stack: Sequence[Path]) -> Any:
    """The model with all adapters of `stack` active and frozen (the plain model for an empty stack).

    Raises InputError where a folder holds no adapter, or one whose shapes do not fit. One of another model of the same
    shapes fits: `of_another_base` says so from what the adapter tells of itself.
    """
    model = loaded.model
    names = []
    for number, folder in enumerate(each(stack), 1):
        name = f"stage_{number}"
        try:
            if isinstance(model, PeftModel):
                model.load_adapter(str(folder), adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{folder}: this adapter does not fit the model: {str(error).splitlines()[0]}") from None
        names.append(name)
    if names:
        _activate(model, names, trained=False)
    return model


def of_another_base(model: str, stack: Sequence[Path]) -> list[str]:
    """One sentence for each adapter of `stack` that was trained on another model than `model`, by its own account.

    Nothing is refused: a hub id and a local copy are two names of one model. Raises InputError where a folder holds no
    adapter.
    """
    told = []
    for folder in each(stack):
        config = read_json(folder / CONFIG)
        base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
        if base and base != model and not (Path(model).is_dir() and Path(base).resolve() == Path(model).resolve()):
            told.append(f"adapter {folder} says it was trained on {base}, and is put on {model}")
    return told


def base_of(model: Any) -> Any:
    """The transformers model below the adapters, if there are any."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def require_targets(model: Any, spec: Lora | Mapping[str, DomainLora], where: str) -> None:
    """Raises InputError where `target_modules` names a layer that the model does not have."""
    linear = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_linear(module)})
    for domain, lora in adapters_of(spec).items():
        for target in lora.target_modules if lora.target_modules != "all-linear" else ():
            if target.rsplit(".", 1)[-1] not in linear:
                key = f"{where}: {_key(domain)}.target_modules"
                raise InputError(f"{key}: no linear layer {target!r}; there are {', '.join(linear)}")


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)  # bitsandbytes' 4-bit layer is one as well


def add(model: Any, spec: Lora | Mapping[str, DomainLora], *, seed: int, base_name: str) -> Any:
    """Add new trainable adapters on top of the active ones; their output is 0 until they are trained.

    Of several each begins with values that depend on the seed and its own domain alone.
    """
    earlier = _names(model)
    loras = adapters_of(spec)
    for domain, lora in loras.items():
        torch.manual_seed(int(content_id(["adapter", seed, domain])[:8], 16) if domain else seed)
        model = _with_new(model, domain, lora)
        model.peft_config[_name(domain)].base_model_name_or_path = base_name
    _activate(model, [*earlier, *map(_name, loras)], trained=True)
    model.eval()
    for module in model.modules():
        for domain, lora in loras.items():
            if lora.dropout and isinstance(module, LoraLayer) and _name(domain) in module.lora_dropout:
                module.lora_dropout[_name(domain)].train()
    return model


def _with_new(model: Any, domain: str, lora: Lora) -> Any:
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        if not isinstance(model, PeftModel):
            return get_peft_model(model, config, adapter_name=_name(domain))
        model.add_adapter(_name(domain), config)
        return model
    except ValueError as error:
        raise InputError(f"{_key(domain)}.target_modules: {str(error).splitlines()[0]}") from None


@contextmanager
def reference(model: Any, kind: str) -> Iterator[None]:
    """Within this context the model is its own reference: the stage's start (`previous`) or the `base`."""
    names, new = _names(model), _new(model)
    earlier = [name for name in names if name not in new]
    if kind == "previous" and earlier:
        _activate(model, earlier, trained=False)
        try:
            yield
        finally:
            _activate(model, names, trained=bool(new))
    elif isinstance(model, PeftModel):
        with model.disable_adapter():
            yield
        _activate(model, names, trained=bool(new))
    else:
        yield


def trainable(model: Any, domain: str | None = None) -> dict[str, torch.nn.Parameter]:
    """The parameters of the adapters that are trained, or of the one of a domain, by name, in a fixed order."""
    found = {name: parameter for name, parameter in sorted(model.named_parameters()) if parameter.requires_grad}
    return {name: value for name, value in found.items() if domain is None or f".{_name(domain)}." in name}


def save(model: Any, folder: Path) -> None:
    """Save what was trained as plain PEFT adapters (safetensors), the same bytes for the same adapter.

    A single one stands at the top of `folder`, those of domains in a folder of their own in it.
    """
    new = _new(model)
    for adapter in new:
        config = model.peft_config[adapter]
        for name, value in vars(config).items():
            if isinstance(value, set):  # PEFT would write it in an order that is another one in every process
                setattr(config, name, sorted(value))
    model.save_pretrained(str(folder), selected_adapters=list(new), save_embedding_layers=False)
    for adapter, domain in new.items():
        if domain:
            shutil.rmtree(folder / domain, ignore_errors=True)
            (folder / adapter).rename(folder / domain)


def detach(model: Any) -> Any:
    """The base model without any adapter, as it was before `attach` and `add`."""
    if not isinstance(model, PeftModel):
        return model
    base = model.unload()
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        if attribute in vars(base):
            delattr(base, attribute)
    return base


def _activate(model: Any, names: list[str], *, trained: bool) -> None:
    """Make `names` active; of all parameters only the trained adapters' keep a gradient."""
    model.base_model.set_adapter(names)
    new = _new(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained and any(f".{adapter}." in name for adapter in new))


def _names(model: Any) -> list[str]:
    return list(model.peft_config) if isinstance(model, PeftModel) else []  # in the order in which they were added


def _name(domain: str) -> str:
    """PEFT's name of a new adapter. A domain may be called as a layer is, and a name cannot hold a dot."""
    return f"@{domain.replace('.', '%')}@" if domain else TRAINED


def _new(model: Any) -> dict[str, str]:
    """PEFT's names of the adapters that are trained, and the domain of each."""
    return {
        name: name.strip("@").replace("%", ".") if name != TRAINED else ""
        for name in _names(model)
        if name == TRAINED or name.startswith("@")
    }


def _key(domain: str) -> str:
    """Where the recipe speaks of an adapter."""
    return f"lora.{domain}" if domain else "lora"


def require_adapter(folder: Path, where: str = "") -> None:
    """Raises InputError, which begins with `where`, unless the folder holds an adapter or one for each domain."""
    for part in parts(folder) or [folder]:
        for name in (CONFIG, WEIGHTS):
            if not (part / name).is_file():
                raise InputError(f"{where}{part}: not an adapter: {name} is missing")
