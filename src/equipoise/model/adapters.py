"""The LoRA stack: frozen adapters of earlier stages, and the one that a stage trains.

Every stage's adapter is a plain PEFT adapter in a folder of its own. Earlier ones are loaded frozen and
stay active beside the new one, so nothing is merged into the base weights: a 4-bit base stays as it is,
and going back to an earlier stage means leaving an adapter out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from equipoise.model.load import Loaded
from equipoise.recipe import Lora
from equipoise.records import InputError, content_id
from equipoise.run_folder import sha256

TRAINED = "default"
"""PEFT's name of the adapter that is trained; PEFT saves this one at the top of a folder."""


def stack_identity(loaded: Loaded, stack: Sequence[Path]) -> str:
    """Identity of a base model with adapters: two stacks of the same content have the same identity.

    Raises InputError where a folder holds no adapter.
    """
    for folder in stack:
        require_adapter(folder)
    files = ("adapter_config.json", "adapter_model.safetensors")
    return content_id([loaded.identity, [[sha256(folder / name) for name in files] for folder in stack]])


def attach(loaded: Loaded, stack: Sequence[Path]) -> Any:
    """The model with all adapters of `stack` active and frozen (the plain model for an empty stack).

    Raises InputError where a folder holds no adapter, or one of another model.
    """
    model = loaded.model
    names = []
    for number, folder in enumerate(stack, 1):
        require_adapter(folder)
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


def base_of(model: Any) -> Any:
    """The transformers model below the adapters, if there are any."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def require_targets(model: Any, spec: Lora, where: str) -> None:
    """Raises InputError where `target_modules` names a layer that the model does not have."""
    if spec.target_modules == "all-linear":
        return
    linear = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_linear(module)})
    for target in spec.target_modules:
        if target.rsplit(".", 1)[-1] not in linear:
            raise InputError(f"{where}: lora.target_modules: no linear layer {target!r}; there are {', '.join(linear)}")


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)  # bitsandbytes' 4-bit layer is one as well


def add(model: Any, spec: Lora, *, seed: int, base_name: str) -> Any:
    """Add a new trainable adapter on top of the active ones; its output is 0 until it is trained."""
    earlier = _names(model)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=spec.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        if isinstance(model, PeftModel):
            model.add_adapter(TRAINED, config)
        else:
            model = get_peft_model(model, config, adapter_name=TRAINED)
    except ValueError as error:
        raise InputError(f"lora.target_modules: {str(error).splitlines()[0]}") from None
    model.peft_config[TRAINED].base_model_name_or_path = base_name
    _activate(model, [*earlier, TRAINED], trained=True)
    model.eval()
    if spec.dropout:
        for module in model.modules():
            if isinstance(module, LoraLayer) and TRAINED in module.lora_dropout:
                module.lora_dropout[TRAINED].train()
    return model


@contextmanager
def reference(model: Any, kind: str) -> Iterator[None]:
    """Within this context the model is its own reference: the stage's start (`previous`) or the `base`."""
    names = _names(model)
    earlier = [name for name in names if name != TRAINED]
    if kind == "previous" and earlier:
        _activate(model, earlier, trained=False)
        try:
            yield
        finally:
            _activate(model, names, trained=TRAINED in names)
    elif isinstance(model, PeftModel):
        with model.disable_adapter():
            yield
        _activate(model, names, trained=TRAINED in names)
    else:
        yield


def trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters of the adapter that is trained, by name, in a fixed order."""
    return {name: parameter for name, parameter in sorted(model.named_parameters()) if parameter.requires_grad}


def save(model: Any, folder: Path) -> None:
    """Save the trained adapter as a plain PEFT adapter (safetensors), the same bytes for the same adapter."""
    config = model.peft_config[TRAINED]
    for name, value in vars(config).items():
        if isinstance(value, set):  # PEFT would write it in an order that is another one in every process
            setattr(config, name, sorted(value))
    model.save_pretrained(str(folder), selected_adapters=[TRAINED], save_embedding_layers=False)


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
    """Make `names` active; of all parameters only the trained adapter's keep a gradient."""
    model.base_model.set_adapter(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained and f".{TRAINED}." in name)


def _names(model: Any) -> list[str]:
    return list(model.peft_config) if isinstance(model, PeftModel) else []  # in the order in which they were added


def require_adapter(folder: Path, where: str = "") -> None:
    """Raises InputError, which begins with `where`, unless the folder holds an adapter."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise InputError(f"{where}{folder}: not an adapter: {name} is missing")
