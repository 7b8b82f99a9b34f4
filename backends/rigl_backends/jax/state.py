"""The optimizer's state: what it holds for each weight, how it starts, and which optimizers leave it alone.

What holds a number for each weight is read from the trace of the optimizer's ``update``, whatever its shape and place.
Where the trace does not tell, the first ``update`` takes three steps on the side with random numbers
(`follows_weights`): for adafactor with momentum, SM3, and optimizers with matrices such as Shampoo's. That takes the
memory of such steps, and the time to compile them. Matrices and other statistics stay as the optimizer makes them. An
optimizer that cannot be traced is asked for what is named and shaped like a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters import partial_eval

from rigl_backends.jax.evidence import FREE, MIXED, Fresh, Known, follow, joined
from rigl_backends.jax.handle import SparseState
from rigl_backends.jax.probe import Trace, follows_weights
from rigl_backends.jax.trees import Tree, find_nodes, named_leaves, owners, shape_of, zero_outside
from rigl_core.adapter import errors

_OUTSIDE = {
    optax.MultiStepsState: (
        "optax.MultiSteps inside another transformation, where the accumulated gradient cannot be seen: put it "
        "outside, MultiSteps(sparsify(...), k)."
    ),
    optax.LookaheadState: (
        "optax.lookahead, whose fast and slow weights need one topology: put it outside, "
        "lookahead(sparsify(...), ...), and call apply_masks on both after every step (see sparsify)."
    ),
    optax.contrib.SAMState: (
        "optax.contrib.sam, in the middle of whose steps an update would keep disturbed weights: put it outside, "
        "sam(sparsify(...), ..., opaque_mode=True)."
    ),
}


def check_inner(inner_state: Any, params: Tree) -> None:
    """Refuse an inner transformation whose state cannot follow a topology that moves.

    Raises:
        ValueError: saying what to do instead.
    """
    if find_nodes(inner_state, SparseState):
        raise errors.already_sparsified("inner")
    for kind, remedy in _OUTSIDE.items():
        if find_nodes(inner_state, kind):
            raise ValueError(f"inner hides {remedy}")
    arrays = named_leaves(params)
    total = sum(getattr(array, "size", 0) for array in arrays.values())
    for name, leaf in zip(owners(inner_state, params), jax.tree.leaves(inner_state), strict=True):
        history = name is not None and len(shape_of(leaf)) > len(shape_of(arrays[name])) > 0 and leaf.size
        if history or (name is None and shape_of(leaf) == (total,)):
            raise ValueError(
                f"inner holds an array of shape {shape_of(leaf)} that mixes weights (L-BFGS, optax.flatten), so it "
                "cannot follow a topology that moves: use a first-order optimizer on the parameters' own tree."
            )


def state_of(inner_state: Any, params: Tree) -> dict[str, list[Array]]:
    """The arrays of an optimizer's state that are named and shaped like a parameter, by parameter.

    `Held.positions` tells which of them hold a number for each weight: nearly always all.
    """
    return {
        name: leaves_at(inner_state, own) for name, own in _named(inner_state, params, named_leaves(params)).items()
    }


def _named(inner_state: Any, params: Tree, names: Iterable[str]) -> dict[str, list[int]]:
    """The leaves that are named and shaped like these parameters, by parameter."""
    shapes = {name: shape_of(leaf) for name, leaf in named_leaves(params).items()}
    leaves = [*zip(owners(inner_state, params), jax.tree.leaves(inner_state), strict=True)]
    return {
        name: [i for i, (owner, leaf) in enumerate(leaves) if owner == name and shape_of(leaf) == shapes[name]]
        for name in names
    }


class NewState:
    """What an optimizer holds for new weights: what its ``init`` gives them.

    Args:
        init: of the optimizer.
        params: arrays, whose shapes and dtypes count.
        numbers: in place of what ``init`` gives, by leaf of the state (`Held`).
    """

    def __init__(self, init: Any, params: Tree, numbers: Mapping[int, float]) -> None:
        self._trace = jax.make_jaxpr(init)(params)
        self._params, self._numbers = named_leaves(params), numbers

    def of(self, weights: Mapping[str, Array], positions: Sequence[int]) -> list[Array]:
        """The leaves of the state at these positions, and nothing else, for layers with these weights."""
        used = [i in positions for i in range(len(self._trace.jaxpr.outvars))]
        needed, _ = partial_eval.dce_jaxpr(self._trace.jaxpr, used, instantiate=True)
        found = jaxpr_as_fun(ClosedJaxpr(needed, self._trace.consts))(*{**self._params, **weights}.values())
        numbers = (self._numbers.get(i) for i in positions)  # which are in the order of the leaves
        return [x if n is None else jnp.full_like(x, n) for x, n in zip(found, numbers, strict=True)]


def fresh_outside(held: Sequence[Array], fresh: Sequence[Array], mask: Array) -> list[Array]:
    """What an optimizer holds inside the mask, and what it holds for new weights outside."""
    return [jnp.where(mask, own, new.astype(own.dtype)) for own, new in zip(held, fresh, strict=True)]


def fresh_state_outside(
    inner_state: Any, weights: Mapping[str, Array], masks: Mapping[str, Array], held: Held, new_state: NewState
) -> Any:
    """The state as for new weights outside the masks, where a step does not leave it so by itself."""
    leaves: dict[int, Array] = {}
    for name, weight in weights.items():
        positions, keeps = held.positions[name], held.keeps[name]
        changed = [i for i, kept in zip(positions, keeps, strict=True) if not kept]
        fresh = new_state.of({name: zero_outside(weight, masks[name])}, changed) if changed else []
        leaves |= zip(changed, fresh_outside(leaves_at(inner_state, changed), fresh, masks[name]), strict=True)
    return with_leaves_at(inner_state, leaves)


def leaves_at(tree: Any, positions: Iterable[int]) -> list[Any]:
    """The leaves of a tree at these positions."""
    leaves = jax.tree.leaves(tree)
    return [leaves[i] for i in positions]


def with_leaves_at(tree: Any, leaves: Mapping[int, Any]) -> Any:
    """The tree with other leaves at these positions."""
    own, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [leaves.get(i, leaf) for i, leaf in enumerate(own)])


@dataclass(frozen=True)
class Held:
    """What an optimizer holds for each weight, and does with it.

    Attributes:
        positions: by layer, the leaves of the optimizer's state that hold a number for each weight.
        keeps: for each of these whether a step leaves it as it is outside the layer's mask.
        still: the layers that the optimizer does not train.
        numbers: what a step without a gradient makes of a new weight's 0, by leaf. ACProp divides by it, and not by 0.
    """

    positions: Mapping[str, Sequence[int]]
    keeps: Mapping[str, Sequence[bool]]
    still: frozenset[str]
    numbers: Mapping[int, float]


def held_by(
    inner: Any, gradients: Tree, inner_state: Any, params: Tree, extra_args: Mapping[str, Any], *, names: Sequence[str]
) -> Held:
    """What an optimizer holds for each weight of the layers with these names.

    An array that a step leaves as it is outside the masks need not be masked, which took 4 to 11 % of a step.

    Raises:
        ValueError: if nothing tells whether an array holds a number for each weight.
    """
    try:
        trace = Trace(inner, gradients, inner_state, params, extra_args)
    except jax.errors.JAXTypeError:  # it needs numbers, as code that prints or logs them does
        named = _named(inner_state, params, names)
        return Held(named, {name: [False] * len(own) for name, own in named.items()}, frozenset(), {})
    given, updates, after = _followed(trace, names)
    owned = _owned(trace, params, inner_state, names, [known.owner for known in after])
    kept = [known == before and known.outside is not None for known, before in zip(after, given, strict=True)]
    positions = {name: [i for i, owner in enumerate(owned) if owner == name] for name in names}
    keeps = {name: [kept[i] and after[i].owner == name for i in own] for name, own in positions.items()}
    still = {name for name, known in updates.items() if known.still}
    numbers = {
        i: known.outside
        for i, (known, before) in enumerate(zip(after, given, strict=True))
        if before.outside == 0 and isinstance(known.outside, float) and known.outside
    }
    return Held(positions, keeps, frozenset(names).intersection(still if len(still) < len(updates) else ()), numbers)


def _followed(trace: Trace, names: Sequence[str]) -> tuple[list[Known], dict[str, Known], list[Known]]:
    """What is known of the optimizer's state before a step, of its updates by name, and of its state after the step."""

    def of(name: str) -> Known:
        return Known(name, 0.0) if name in names else Known(MIXED)

    params = [of(name) for name in trace.params]
    new = follow(trace.init.jaxpr, params)
    owners = [known.owner for known in new]
    rest = len(trace.update.in_avals) - len(trace.gradients) - len(new) - len(params)
    while True:
        given = [
            Known(owner, 0.0 if known.outside == 0 and owner in names else Fresh(i))
            for i, (known, owner) in enumerate(zip(new, owners, strict=True))
        ]
        results = follow(trace.update.jaxpr, [*map(of, trace.gradients), *given, *params, *[Known()] * rest])
        updates, after = results[: len(trace.updates)], results[len(trace.updates) :]
        before, owners = owners, [joined(*pair).owner for pair in zip(given, after, strict=True)]
        if owners == before:
            return given, dict(zip(trace.updates, updates, strict=True)), after


def _owned(trace: Trace, params: Tree, inner_state: Any, names: Sequence[str], told: Sequence[str]) -> list[str | None]:
    """For each leaf of the state the layer for each of whose weights it holds a number, if any.

    A leaf's path names a layer nearly always; ``told`` is what the trace tells.
    """
    leaves, shapes = jax.tree.leaves(inner_state), {name: shape_of(leaf) for name, leaf in named_leaves(params).items()}
    owned: list[str | None] = []
    asked: dict[int, str | None] = {}
    for i, (leaf, name, own) in enumerate(zip(leaves, owners(inner_state, params), told, strict=True)):
        name = name if name in names else None
        if own != MIXED:
            fits = name is not None and shape_of(leaf) == shapes[name]
            owned.append(None if own == FREE else name if fits else own)
            continue
        owned.append(None)
        if shape_of(leaf) in ([shapes[name]] if name is not None else [shapes[name] for name in names]):
            asked[i] = name
        elif name is not None and leaf.size == math.prod(shapes[name]):
            raise _untold(leaf)
    for i, follows in (follows_weights(trace, names, [*asked]) if asked else {}).items():
        if follows is None or (follows and asked[i] is None):
            raise _untold(leaves[i])
        owned[i] = asked[i] if follows else None
    return owned


def _untold(leaf: Any) -> ValueError:
    return ValueError(
        f"inner holds an array of shape {shape_of(leaf)}, and nothing tells whether each of its numbers belongs to one "
        "weight, so it cannot follow a topology that moves: use an optimizer that keeps such numbers in the "
        "parameters' own tree, or exclude the layer."
    )
