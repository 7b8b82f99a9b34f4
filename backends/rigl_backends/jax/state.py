"""The optimizer's state: what it holds for each weight, and which optimizers keep zeros."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax import Array

from rigl_backends.jax.handle import SparseState
from rigl_backends.jax.trees import Tree, called, find_nodes, is_traced, named_leaves, owners, shape_of, zero_outside
from rigl_core.adapter import errors


def check_inner(inner_state: Any, params: Tree) -> None:
    """Refuse an inner transformation whose state cannot follow a topology that moves.

    Raises:
        ValueError: saying what to do instead.
    """
    if find_nodes(inner_state, SparseState):
        raise errors.already_sparsified("inner")
    if find_nodes(inner_state, optax.MultiStepsState):
        raise ValueError(
            "inner hides optax.MultiSteps inside another transformation, where the accumulated gradient cannot be "
            "seen: put it outside, MultiSteps(sparsify(...), k)."
        )
    arrays = named_leaves(params)
    total = sum(getattr(array, "size", 0) for array in arrays.values())
    for name, leaf in zip(owners(inner_state, params), jax.tree.leaves(inner_state), strict=True):
        history = name is not None and len(shape_of(leaf)) > len(shape_of(arrays[name])) > 0
        if history or (name is None and shape_of(leaf) == (total,)):
            raise ValueError(
                f"inner holds an array of shape {shape_of(leaf)} that mixes weights (L-BFGS, optax.flatten), so it "
                "cannot follow a topology that moves: use a first-order optimizer on the parameters' own tree."
            )


def state_of(inner_state: Any, params: Tree) -> dict[str, list[Array]]:
    """The arrays of an optimizer's state that hold a number for each weight, by parameter."""
    leaves = jax.tree.leaves(inner_state)
    return {name: [leaves[i] for i in own] for name, own in _positions(inner_state, params).items()}


def with_state_of(inner_state: Any, params: Tree, state: Mapping[str, Sequence[Array]]) -> Any:
    """An optimizer's state with other arrays for some parameters."""
    leaves, structure = jax.tree.flatten(inner_state)
    positions = _positions(inner_state, params)
    for name, arrays in state.items():
        for i, array in zip(positions[name], arrays, strict=True):
            leaves[i] = array
    return jax.tree.unflatten(structure, leaves)


def zero_state_outside(
    inner_state: Any, params: Tree, masks: Mapping[str, Array], kept: Mapping[str, Sequence[bool]] | None = None
) -> Any:
    """An optimizer's state with zeros outside the masks.

    Args:
        inner_state: the optimizer's.
        params: the parameters.
        masks: by layer name.
        kept: for each array of `state_of` whether it is zero there already.
    """
    state = state_of(inner_state, params)
    for name, mask in masks.items():
        flags = kept[name] if kept else [False] * len(state[name])
        pairs = zip(state[name], flags, strict=True)
        state[name] = [array if flag else zero_outside(array, mask) for array, flag in pairs]
    return with_state_of(inner_state, params, state)


def _positions(inner_state: Any, params: Tree) -> dict[str, list[int]]:
    """Which leaves of an optimizer's state hold a number for each weight, by parameter."""
    positions: dict[str, list[int]] = {name: [] for name in named_leaves(params)}
    for i, name in enumerate(_holders(inner_state, params)):
        if name is not None:
            positions[name].append(i)
    return positions


def _holders(tree: Any, params: Tree) -> list[str | None]:
    """For each leaf the parameter of which it holds a number for each weight, if of any."""
    shapes = {name: shape_of(leaf) for name, leaf in named_leaves(params).items()}
    leaves = zip(owners(tree, params), jax.tree.leaves(tree), strict=True)
    return [name if name is not None and shape_of(leaf) == shapes[name] else None for name, leaf in leaves]


def keeps_zeros(
    update: Callable[..., Any], gradients: Tree, inner_state: Any, params: Tree, names: Container[str]
) -> dict[str, list[bool]] | None:
    """For each array of `state_of` whether an optimizer leaves it zero wherever gradients, weights and state are.

    This is read from the optimizer's trace. An array counts if it is made of gradients, weights and state by the few
    operations on single elements that make momentum and second moments, with factors that stand in the program. What
    passed a clipping by norm does not count, since that may divide by NaN; nor does what an unknown operation gave.
    Masking such arrays after the step would read and write them once more, which took 4 to 11 % of a step.

    Args:
        update: maps gradients, state and parameters to updates and the next state.
        gradients: of the parameters' structure.
        inner_state: the optimizer's.
        params: the parameters.
        names: of the layers that have masks.

    Returns:
        By parameter; None if nothing is traced: for a single step, masking costs less than to find out.
    """
    trees = gradients, inner_state, params
    if not is_traced(trees):
        return None
    trace = jax.make_jaxpr(lambda *trees: update(*trees)[1])(*trees).jaxpr
    given = [name if name is not None and name in names else None for tree in trees for name in _holders(tree, params)]
    zero = _zero_outside(trace, given)
    return {name: [zero[i] == name for i in own] for name, own in _positions(inner_state, params).items()}


_FINITE = object()
"""Known of a number that stands in the program."""
_Known = Any
"""Known of an array: the name of the layer outside whose mask it is zero, `_FINITE`, or None."""

_OF_ONE = ("neg", "abs", "sqrt", "sign", "square", "convert_element_type", "copy", "reduce_precision")
_OF_SEVERAL = ("add", "sub", "add_any", "max", "min")


def _zero_outside(jaxpr: Any, given: Sequence[_Known]) -> list[_Known]:
    """Follow zeros through a trace: from what is known of its arguments to what is known of its results."""
    known = dict(zip(jaxpr.invars, given, strict=True))

    def find(atom: Any) -> _Known:
        if hasattr(atom, "val"):
            return _FINITE if np.isfinite(np.asarray(atom.val)).all() else None
        return known.get(atom)

    for equation in jaxpr.eqns:
        results = _results(equation, [find(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [find(atom) for atom in jaxpr.outvars]


def _results(equation: Any, inputs: list[_Known]) -> Sequence[_Known]:
    kind = equation.primitive.name
    if (inner := called(equation)) is not None:
        return _zero_outside(inner, inputs)
    if kind == "select_n":
        inputs = inputs[1:]
    elif kind == "mul":
        inputs = [factor for factor in inputs if factor is not _FINITE]
    elif kind == "integer_pow":
        inputs = inputs if equation.params["y"] > 0 else [None]
    elif kind not in _OF_ONE + _OF_SEVERAL:
        inputs = [None]
    alike = len(set(inputs)) == 1 and _FINITE not in inputs
    return [inputs[0] if alike else None] * len(equation.outvars)
