"""The choice of a layer's k largest scores over its shards. Processes exchange counts, and neither scores nor weights.

It finds the connections, bit for bit, that `rigl_core.adapter.top_k_mask` finds in the whole layer. Each connection has
a key of its own: the bits of the score, and then those of its flat index, counted from the end. So no keys are equal.
The k-th largest key is found digit by digit, from the highest on. In each round all processes count how many of their
connections have each value of the next digit. The sum of these counts tells each of them which value the k-th largest
key has there. The rounds end early once all connections that have that value fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rigl_backends.torch import namespace as torch_namespace
from rigl_core.adapter import Namespace

BITS = 8
"""Bits of a digit: 256 int32 counts are sent in a round, and float32 scores have four digits."""
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def namespace_of(indices: Callable[[], Tensor], size: int, total: Callable[[Tensor], Tensor]) -> Namespace:
    """PyTorch's operations on the arrays of a shard, of which choices and counts are those of the whole layer.

    Args:
        indices: gives the int32 flat indices, in the layer, of the shard's connections.
        size: the number of connections of the layer.
        total: the sum of int32 counts over all shards.
    """
    choice = partial(best_of, indices=indices, size=size, total=total)
    return SimpleNamespace(**{**vars(torch_namespace), "on_host": None, "best_of": choice, "total": total})


def best_of(
    scores: Tensor,
    k: Any,
    *,
    among: Tensor | None = None,
    outside: Tensor | None = None,
    indices: Callable[[], Tensor],
    size: int,
    total: Callable[[Tensor], Tensor],
) -> Tensor:
    """See `rigl_core.adapter.best_of`; the scores and masks are those of a shard.

    Args:
        scores: flat, without NaN and -0.
        k: the number to choose from all shards; the same in all processes.
        among: bool, the connections to choose from; all if neither ``among`` nor ``outside`` is given.
        outside: bool, the connections not to choose from.
        indices: as in `namespace_of`; it is asked only if scores are equal. So are ``size`` and ``total``.
        size: of the layer.
        total: of counts.

    Raises:
        ValueError: if there are fewer than ``k`` connections to choose from.
    """
    eligible = torch.ones_like(scores, dtype=torch.bool) if among is None else among
    left = (eligible if outside is None else ~outside).nonzero().reshape(-1)
    chosen, room = torch.zeros_like(scores, dtype=torch.bool), int(k)
    for digits_of in _digits(scores, indices, size) if room else ():
        digits = digits_of(left)
        counts = total(torch.bincount(digits, minlength=1 << BITS).to(torch.int32)).tolist()
        reached, room = _reached(counts, room)
        chosen[left[digits > reached]] = True
        left = left[digits == reached]
        if room == counts[reached]:
            chosen[left] = True
            break
    return chosen


def _digits(scores: Tensor, indices: Callable[[], Tensor], size: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """For each digit of the key, from the highest on: gives this digit of some connections, from 0 to 255."""
    keys = _ordered(scores)
    highest = 8 * keys.element_size() - BITS
    yield lambda some: (keys[some] >> highest) + (1 << (BITS - 1))  # with the sign
    yield from _lower_digits(keys, highest)
    from_the_end = size - 1 - indices().to(scores.device)
    yield from _lower_digits(from_the_end, -(-(size - 1).bit_length() // BITS) * BITS)


def _lower_digits(keys: Tensor, below: int) -> Iterator[Callable[[Tensor], Tensor]]:
    for shift in range(below - BITS, -1, -BITS):
        yield lambda some, shift=shift: (keys[some] >> shift) & ((1 << BITS) - 1)  # type: ignore[misc]


def _ordered(scores: Tensor) -> Tensor:
    """Integers in the order of the scores: of floats the bits, of which negative ones count backwards."""
    if not scores.is_floating_point():
        return scores
    bits = scores.view(_INTEGERS[scores.element_size()])
    return bits ^ ((bits >> (8 * bits.element_size() - 1)) & torch.iinfo(bits.dtype).max)


def _reached(counts: Sequence[int], room: int) -> tuple[int, int]:
    """The digit of the k-th largest key, and how many of those that have it are to be chosen."""
    for digit in reversed(range(len(counts))):
        if room <= counts[digit]:
            return digit, room
        room -= counts[digit]
    raise ValueError(f"k is too large by {room}: fewer connections are eligible.")
