"""What an optimizer holds for each weight, and what it gives a new weight: found by a probe on the side.

A copy of the optimizer trains a small parameter for some steps, and then the same parameter with its rows and columns
in another order. An array that holds one number for each weight comes out in this other order. Matrices of rows by
rows, statistics of rows, and numbers in a basis of the optimizer's own do not, also where a square layer gives them its
shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.small_training import Data, Seen, UnclearError, make_data, moved, train
from rigl_backends.torch.twin import Path, copied, group_of, made_anew, optimizers_in

Fresh = float | int | None
"""What a new weight gets: a number, an integer in arrays of integers, or None for the weight's own value."""

_YES, _NO = 0.9, 0.5
"""From which correlation on, and up to which, two arrays are the same but for noise, or are not."""
_LARGE = 4096
"""Parameters with fewer weights have their state in 32 bits in 8-bit optimizers."""


@dataclass(frozen=True)
class Found:
    """What a probe found, by the keys that lead to an array.

    Attributes:
        fresh: what a new weight gets in the arrays that hold one number for each weight.
        others: arrays that belong to no single weight: counters, statistics of rows, matrices.
        rests: whether a step in which no parameter has a gradient changes nothing, and does not fail.
    """

    fresh: Mapping[Path, Fresh]
    others: frozenset[Path]
    rests: bool


_found: WeakKeyDictionary[Optimizer | type[Optimizer], dict[object, Found]] = WeakKeyDictionary()
"""By optimizer; by class for those of PyTorch, which hold nothing besides their options."""


def probe(optimizer: Optimizer, param: nn.Parameter, *, like: bool = False) -> Found:
    """Find out what an optimizer, which is left as it is, holds for each weight of a parameter.

    Parameters that are alike share a probe.

    Args:
        optimizer: holds the parameter.
        param: the parameter.
        like: whether the small parameter should be as long and as wide as this one, if that is not too much.

    Raises:
        ValueError: if the copy of the optimizer fails, or if its state cannot be told; the message says why.
    """
    try:
        return _probe_once(optimizer, param, like)
    except UnclearError:
        inner = [(path, held) for path, held in optimizers_in(optimizer) if path]
        if not inner:
            raise
    # A wrapper that cannot be copied, such as ZeroRedundancyOptimizer. Another process may hold the parameter's state.
    found = [(path, _probe_once(held, param, like)) for path, held in inner]
    own: list[Path] = [()] if optimizer.state.get(param) else []  # what was loaded into the wrapper is there, too
    starts = [(start, one) for path, one in found for start in (path, *own)]
    return Found(
        {(*start, *rest): fresh for start, one in starts for rest, fresh in one.fresh.items()},
        frozenset((*start, *rest) for start, one in starts for rest in one.others),
        all(one.rests for _, one in found),
    )


def _probe_once(optimizer: Optimizer, param: nn.Parameter, like: bool) -> Found:
    group = group_of(optimizer, param) or {}
    options = repr({key: value for key, value in group.items() if key not in ("params", "param_names")})
    shape, known = _small(param, like), _found.setdefault(_owner(optimizer), {})
    key = (shape, param.dtype, param.device, options)
    if key not in known:
        known[key] = _probe(optimizer, param, make_data(shape, param))
    return known[key]


def _small(param: Tensor, like: bool) -> tuple[int, ...]:
    """A shape of few weights. It has more columns than rows, so that no matrix of rows by rows looks like weights."""
    if param.ndim == 1:
        return (min(max(param.numel(), 8), _LARGE),)
    rows, columns = (64, 80) if param.numel() >= _LARGE else (16, 24)
    if like:
        rows, columns = min(param.shape[0], rows), min(param.shape[1], columns)
    return (rows, columns + (rows == columns), *(min(size, 3) for size in param.shape[2:]))


def _probe(optimizer: Optimizer, param: nn.Parameter, data: Data) -> Found:
    reason: Exception | None = None
    for make, *way in itertools.product((copied, made_anew), (False, True), (False, True)):
        try:
            one, other = (train(partial(make, optimizer, param), own, *way) for own in (data, data.moved()))
        except UnclearError:
            raise
        except Exception as error:  # an optimizer may raise anything
            reason = reason or error
        else:
            return _compare(data, one, other)
    raise UnclearError(f"a copy of it, which holds one small parameter, fails: {reason!r}") from reason


# What the two trainings say.


def _owner(optimizer: Optimizer) -> Optimizer | type[Optimizer]:
    own = type(optimizer)
    return own if own.__module__.startswith("torch.optim.") and own.__name__ in vars(torch.optim) else optimizer


def _compare(data: Data, one: Seen, other: Seen) -> Found:
    fresh = {
        path: _fresh(data, path, one, other)
        for path in one.last
        if _is_per_weight(data, path, one.first[path], one.last[path], other.last.get(path))
    }
    return Found(fresh, frozenset(one.last) - fresh.keys(), one.rests)


def _is_per_weight(data: Data, path: Path, first: Tensor, last: Tensor, other: Tensor | None) -> bool:
    """Whether an array, or each of several in a stack, holds a number for each weight."""
    shape, size = data.weight.shape, data.weight.numel()
    if last.numel() % size or not last.numel():
        if _holds_codes(last) and last.numel() >= size // 4:
            raise UnclearError(f"it packs several numbers of {'.'.join(path)} into a byte")
        return False
    if bool((last == last.reshape(-1)[0]).all()):
        return torch.equal(first, last)  # otherwise it counts
    if other is None or other.shape != last.shape:
        return False
    stack = last.reshape(-1, *shape)
    alike = _correlation(torch.stack([moved(values) for values in stack]), other)
    if _NO < alike < _YES or (_holds_codes(last) and alike <= _NO):
        raise UnclearError(f"it is not clear whether {'.'.join(path)} holds a number for each weight")
    return alike >= _YES


def _holds_codes(values: Tensor) -> bool:
    return values.element_size() == 1 and not values.is_floating_point() and values.dtype != torch.bool


def _correlation(one: Tensor, other: Tensor) -> float:
    both = torch.nan_to_num(torch.stack([one.double().reshape(-1), other.double().reshape(-1)]))
    return float(torch.corrcoef(both)[0, 1].nan_to_num())


def _fresh(data: Data, path: Path, seen: Seen, other: Seen) -> Fresh:
    """What a new weight gets: what is first stored for it. In integers: the code of 0, or what they are in the end."""
    first, last = seen.first[path], seen.last[path]
    if _holds_codes(last):
        return _code_of_zero(path, seen)
    if not last.is_floating_point():
        return int(_constant(path, last.reshape(-1, data.weight.numel())[:, data.new]))
    stack, weight = first.reshape(-1, data.weight.numel()), data.weight.reshape(-1)
    if torch.allclose(stack[:, data.quiet].double(), weight[data.quiet].double(), rtol=0.05):
        return None
    fresh = _constant(path, stack[:, data.new]) + 0.0  # no -0
    # With larger gradients it is another number: a new weight has a share in those of others, as after centralization.
    return fresh if bool((other.first[path] == fresh).any()) else 0.0


def _code_of_zero(path: Path, seen: Seen) -> int:
    """The code of 0 in bitsandbytes, which has a ``qmap1`` of what the codes in ``state1`` mean."""
    meanings = seen.last.get((*path[:-1], path[-1].replace("state", "qmap")))
    zeros = [] if meanings is None else (meanings == 0).nonzero().reshape(-1).tolist()
    if len(zeros) != 1:
        raise UnclearError(f"it holds {'.'.join(path)} in codes of which 0 is not known")
    return int(zeros[0])


def _constant(path: Path, values: Tensor) -> float:
    least, most = (float(value) for value in values.aminmax())
    if least < 0 < most:  # a mixture of other weights' gradients, of which a new weight has none
        return 0.0
    if least != most:
        raise UnclearError(f"it starts {'.'.join(path)} with different numbers")
    return least
