"""Several processes that train together: who does what, and what they tell each other.

`accelerate launch` starts the processes and Accelerate joins them. Two ways of sharing the work are served:

- DDP: every process holds the whole model. Only the adapter has gradients, a few megabytes, so they are summed in
  one message at the end of a step instead of by a wrapper in the middle of the backward pass. So the processes
  can still agree that memory ran out in one of them, and none needs as many micro-batches as another.
- FSDP2: every process holds a part of every layer (`torch.distributed.fsdp.fully_shard`, with the settings of
  Accelerate's plugin). Accelerate itself shards on accelerators only; calling torch here lets the same code run on
  CPUs, where the tests prove it.

Messages between steps go through a gloo group of their own, whose timeout is long: while the main process
evaluates, for hours perhaps, the others wait in it. The group of the gradients keeps the usual short one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from equipoise.dpo.engine import PairScorer
from equipoise.dpo.packing import padded_length, stream_length
from equipoise.model.chat import EncodedPair
from equipoise.records import InputError

T = TypeVar("T")
PATIENCE = timedelta(days=30)
"""How long a process waits for the main one between two stages."""
BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")


class Ended(Exception):
    """The main process has no more work for the others."""


class TrainingStopped(RuntimeError):
    """Training cannot go on: the message names the step, the pairs and what to look at.

    `alone` says that only this process knows, while the others wait for it in a collective.
    """

    def __init__(self, message: str, *, alone: bool = False) -> None:
        super().__init__(message)
        self.alone = alone


class Team:
    """The processes of a run: `size` of them, this one is number `index`, 0 leads. One alone by default."""

    def __init__(self, index: int = 0, size: int = 1, *, sharded: bool = False, talk: Any = None) -> None:
        self.index = index
        self.size = size
        self.sharded = sharded
        self._talk = talk  # the group of messages
        self._busy = False

    @property
    def main(self) -> bool:
        """Whether this is the process that reads, writes, evaluates and reports."""
        return self.index == 0

    def share(self, value: T) -> T:
        """The main process's value, in every process. Raises Ended in the others when the main one leaves."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._talk)
        if isinstance(box[0], Ended):
            raise box[0]
        return box[0]

    def decide(self, find: Callable[[], T | None]) -> T | None:
        """What `find` finds in the main process, which alone runs it."""
        return self.share(find() if self.main else None)

    @contextmanager
    def working(self, job: object) -> Iterator[None]:
        """The main process hands out a job, and within this context takes part in it."""
        self._busy = True
        self.share(job)
        try:
            yield
        except TrainingStopped as stopped:
            self._busy = stopped.alone
            raise
        except InputError:
            self._busy = False
            raise
        self._busy = False

    @contextmanager
    def led(self) -> Iterator[None]:
        """Within this context the main process leads; at its end, however it comes, the others are let go.

        Those that wait for a job are told. Those in the middle of one notice by the closed connection, since a
        message would meet them in another exchange.
        """
        try:
            yield
        finally:
            if self.size > 1 and not self._busy:
                try:
                    dist.broadcast_object_list([Ended()], src=0, group=self._talk)
                except RuntimeError as error:
                    if not lost(error):  # who is gone already need not be told
                        raise

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._talk)
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return any(self.gather(flag)) if self.size > 1 else flag

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add the tensors of all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def portions(
        self, scorer: PairScorer, batch: Sequence[EncodedPair], tokens: int
    ) -> list[tuple[list[EncodedPair], float]]:
        """This process's micro-batches of a global batch, each with the factor of its loss.

        Every process deals the pairs in the same way: longest first, each to the process with the fewest tokens
        so far (Graham's LPT rule), and then fills micro-batches of up to `tokens` tokens. Sharded layers are
        gathered in every forward pass, so there all processes need the same number: a short pair of factor 0
        fills the gap. Sharded gradients are averaged over the processes, so there the factor is their number.
        """
        if self.size == 1:
            return [(micro, 1.0) for micro in scorer.micro_batches(batch, tokens)]
        length = stream_length if scorer.shared else padded_length
        hands: list[list[EncodedPair]] = [[] for _ in range(self.size)]
        loads = [0] * self.size
        for pair in sorted(batch, key=lambda pair: (length(pair), pair.id), reverse=True):
            least = loads.index(min(loads))
            hands[least].append(pair)
            loads[least] += length(pair)
        if not self.sharded:
            return [(micro, 1.0) for micro in scorer.micro_batches(hands[self.index], tokens)]
        dealt = [scorer.micro_batches(hand, tokens) for hand in hands]
        own = [(micro, float(self.size)) for micro in dealt[self.index]]
        missing = max(map(len, dealt)) - len(own)
        return own + [([min(batch, key=lambda pair: (length(pair), pair.id))], 0.0)] * missing

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Give every process the sum of all gradients; sharded ones were summed in the backward pass."""
        if self.size == 1 or self.sharded:
            return
        trained = list(parameters)
        for parameter in trained:
            if parameter.grad is None:  # a process without a pair in this batch
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in trained if parameter.grad is not None]
        flat = self.sum_(torch.cat([grad.flatten() for grad in grads]))
        start = 0
        for grad in grads:
            grad.copy_(flat[start : start + grad.numel()].view_as(grad))
            start += grad.numel()

    def shard(self, scorer: PairScorer) -> None:
        """Spread the parameters of `scorer` over the processes where FSDP2 is asked for, else leave them.

        The main process's values count: others may hold empty tensors (transformers loads so under
        FSDP_CPU_RAM_EFFICIENT_LOADING). Layers go to the device one at a time, so no device but the main one's ever
        holds the whole model. Raises InputError for settings that are not served.
        """
        if not self.sharded:
            return
        # Log-probabilities of chosen and rejected answers are views of one tensor; nothing changes them in place.
        warnings.filterwarnings("ignore", message=".*returned a view tensor")
        plugin = _plugin()
        device = _device()
        layers = _layers(scorer, plugin)
        options: dict[str, Any] = {"mesh": init_device_mesh(device.type, (self.size,))}
        if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
            options["offload_policy"] = plugin.cpu_offload
        for module in layers:
            _level(module, device)
            fully_shard(module, reshard_after_forward=bool(plugin.reshard_after_forward), **options)
        _level(scorer, device)
        fully_shard(scorer, **options)
        for module in scorer.modules():  # torch fixes the precision of gradients at the first gathering, and
            if isinstance(module, FSDPModule):  # that of the reference has no trained parameter
                module.unshard()
                module.reshard()

    def reshard(self, scorer: PairScorer) -> None:
        """Put every sharded layer back to its parts, in case the last forward pass left it whole."""
        if self.sharded:
            for module in scorer.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()


ALONE = Team()
"""One process, the usual case."""


def join() -> Team:
    """Join the processes that a launcher started; raises InputError for a way of sharing that is not served."""
    cpu = not torch.cuda.is_available()
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise InputError("accelerate: DeepSpeed is not served; configure multi-GPU (DDP) or FSDP2, see docs/scaling.md")
    accelerator = Accelerator(mixed_precision="no", cpu=cpu)
    if sharded:
        _plugin()
    talk = dist.new_group(backend="gloo", timeout=PATIENCE)
    return Team(accelerator.process_index, accelerator.num_processes, sharded=sharded, talk=talk)


def leave() -> None:
    """Close the connections at the regular end."""
    if dist.is_initialized():
        dist.destroy_process_group()


def lost(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone."""
    gone = isinstance(error, dist.DistBackendError | dist.DistNetworkError)
    return gone or any(words in str(error) for words in BROKEN)


def full(tensor: Tensor) -> Tensor:
    """A tensor with all its parts; with sharded ones every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The same on the CPU, without its history."""
    return full(tensor.detach()).cpu().contiguous()


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor as `pattern` is: on its device, and sharded in the same way."""
    tensor = tensor.to(pattern.device)
    if isinstance(pattern, DTensor):
        return distribute_tensor(tensor, pattern.device_mesh, pattern.placements)
    return tensor


def _plugin() -> FullyShardedDataParallelPlugin:
    """Accelerate's settings of FSDP, from the environment that `accelerate launch` makes of a config file."""
    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise InputError("accelerate: fsdp_version must be 2; the first version is not served, see docs/scaling.md")
    if plugin.activation_checkpointing:
        raise InputError("accelerate: fsdp_activation_checkpointing is not served; lower optim.micro_batch_tokens")
    return plugin


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _layers(scorer: PairScorer, plugin: FullyShardedDataParallelPlugin) -> list[torch.nn.Module]:
    """The layers that are gathered one at a time: those that the config names, by default the model's own choice."""
    names = set(plugin.transformer_cls_names_to_wrap or getattr(scorer.model, "_no_split_modules", None) or ())
    layers = [module for module in scorer.modules() if type(module).__name__ in names]
    if not layers:
        raise InputError(
            f"accelerate: fsdp_transformer_layer_cls_to_wrap: the model has no layer {', '.join(sorted(names)) or '?'}"
        )
    return layers


def _level(module: torch.nn.Module, device: torch.device) -> None:
    """Put what is not yet sharded in a module on the device, with the main process's values."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not isinstance(parameter, DTensor):
                parameter.data = parameter.data.to(device)
                dist.broadcast(parameter.data, src=0)
        for owner in module.modules():
            for name, buffer in owner._buffers.items():
                if buffer is not None:
                    owner._buffers[name] = moved = buffer.to(device)
                    dist.broadcast(moved, src=0)
