"""A key-value cache for generation that does not copy itself at every token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

SPARE_TOKENS = 64
"""The cache grows by a multiple of this, about an eighth of its length."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A key-value cache with spare room: a step writes one token instead of copying the whole cache."""

    keys: torch.Tensor
    values: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states [rows, heads, new, size] and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms: list[torch.Tensor] = []
        used, new = self.get_seq_length(), key_states.shape[-2]
        if not self._rooms or used + new > self._rooms[0].shape[-2]:
            length = used + new + SPARE_TOKENS * math.ceil((used + new) / (8 * SPARE_TOKENS))
            old: tuple[torch.Tensor, ...] = (self.keys, self.values)
            self._rooms = [
                state.new_empty(*state.shape[:2], length, state.shape[-1]) for state in (key_states, value_states)
            ]
            if used:
                for room, states in zip(self._rooms, old, strict=True):
                    room[:, :, :used] = states
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, used : used + new] = states
        self.keys, self.values = (room[:, :, : used + new] for room in self._rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices`."""
        super().batch_select_indices(indices)
        self._rooms = []


def roomy_cache(model: Any) -> Any:
    """An empty cache for the model; layers of other kinds (sliding windows) stay as transformers makes them."""
    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def joinable(cache: Any) -> bool:
    """Whether `join` knows every layer of the cache: nothing but keys and values of attention."""
    return all(type(layer) in (RoomyLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


def join(caches: Sequence[Any]) -> Any:
    """One cache with the rows of all, in order: shorter ones get empty places on their left.

    Several caches must be `joinable`, and are empty afterwards.
    """
    whole = max(caches, key=lambda cache: cache.get_seq_length())
    if len(caches) == 1:
        return whole
    for parts in zip(*(cache.layers for cache in caches), strict=True):
        if parts[0].is_initialized:
            keys, values = (_stacked([getattr(part, name) for part in parts]) for name in ("keys", "values"))
            for part in parts:
                _hold(part, None, None)  # layer by layer, so that the memory is not needed twice
            _hold(parts[caches.index(whole)], keys, values)
    return whole


def _hold(layer: Any, keys: torch.Tensor | None, values: torch.Tensor | None) -> None:
    layer.keys, layer.values = keys, values
    if isinstance(layer, RoomyLayer):
        layer._rooms = []


def _stacked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """States [rows, heads, length, size] of all parts below each other, shorter ones with zeros on their left."""
    rows, longest = sum(len(part) for part in parts), max(part.shape[-2] for part in parts)
    whole = parts[0].new_zeros(rows, parts[0].shape[1], longest, parts[0].shape[-1])
    start = 0
    for part in parts:
        whole[start : start + len(part), :, longest - part.shape[-2] :] = part
        start += len(part)
    return whole
