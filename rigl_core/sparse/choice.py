"""Which layers of a plan are held as active weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

from rigl_core.model.patterns import check_patterns, first_match
from rigl_core.model.warnings import SparsityWarning
from rigl_core.plan import Plan
from rigl_core.sparse.support import check_recipe, why_not_layer, why_not_worth

Storage = Literal["masks", "active"] | Mapping[str, Literal["masks", "active"]]
"""How layers are held: all with masks; as active weights where that is possible and pays; or by name pattern."""


def active_layers(
    plan: Plan, storage: Storage, why_not: Mapping[str, str], *, convolutions: bool = False
) -> tuple[int, ...]:
    """The positions of the layers to hold as active weights.

    With ``"active"``, layers that cannot be held so, or would not pay, keep their masks, and a warning names them. With
    patterns, the first that fits a layer decides; other layers keep their masks.

    Args:
        plan: the plan.
        storage: what the user asks for.
        why_not: for layers that the framework cannot hold so, by name, the reason.
        convolutions: whether the adapter can hold convolutions so.

    Raises:
        TypeError, ValueError: if the storage is unknown, or the recipe or a layer that a pattern names cannot be held
            so; or if no layer would be.
    """
    if storage == "masks":
        return ()
    wanted = _wanted(plan, storage)
    if not wanted:
        return ()
    check_recipe(plan.recipe)
    reasons = {
        i: reason
        for i in wanted
        if (reason := _why_not(plan, i, why_not, storage == "active", convolutions)) is not None
    }
    told = "; ".join(f"{plan.layers[i].name!r} {reason}" for i, reason in reasons.items())
    if reasons and (storage != "active" or len(reasons) == len(wanted)):
        raise ValueError(f"storage asks for layers to be held as active weights, but {told}: use 'masks' for them.")
    if reasons:
        warnings.warn(f"These layers keep their masks: {told}.", SparsityWarning, stacklevel=4)
    chosen = tuple(i for i in wanted if i not in reasons)
    for pool in plan.pools:
        if 0 < len(set(pool) & set(chosen)) < len(pool):
            raise ValueError(
                "storage holds some layers as active weights and some with masks, but they choose their first topology "
                "together: use one storage for all of them."
            )
    return chosen


def _wanted(plan: Plan, storage: Storage) -> list[int]:
    if storage == "active":
        return list(plan.sparse_layers)
    if not isinstance(storage, Mapping):
        raise _unknown(storage)
    for value in storage.values():
        if value not in ("masks", "active"):
            raise _unknown(value)
    check_patterns("storage", storage, [layer.name for layer in plan.layers])
    return [i for i in plan.sparse_layers if first_match(plan.layers[i].name, storage) == "active"]


def _unknown(storage: object) -> Exception:
    kind = ValueError if isinstance(storage, str) else TypeError
    return kind(f"storage is {storage!r}: use 'masks', 'active', or a dict of these by name pattern.")


def _why_not(plan: Plan, position: int, why_not: Mapping[str, str], must_pay: bool, convolutions: bool) -> str | None:
    layer = plan.layers[position]
    reason = why_not.get(layer.name) or why_not_layer(layer, convolutions=convolutions)
    if reason is None and must_pay:
        reason = why_not_worth(layer, plan.active[position])
    return reason
