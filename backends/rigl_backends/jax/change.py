"""The updates of active weights, which `optax.apply_updates` applies.

An update of the topology moves weights to other places, which is no sum of floats. So each array of an `ActiveWeight`
has an update that knows what ``array + update`` shall be.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from rigl_backends.jax.active_weight import ActiveWeight, Topology


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Change:
    """One array's update: ``array + change`` is the new array. A change of zeros changes nothing.

    Attributes:
        number: the new array, as integers where it is an index; or, where values are not replaced, what is added.
        replaces: bool scalar, whether ``number`` is the new array.
        adds: whether it is added otherwise; or else the array stays.
        dtype: the array's, which optax asks for.
    """

    number: Array
    replaces: Array
    adds: bool = field(metadata={"static": True})
    dtype: Any = field(metadata={"static": True})

    def __radd__(self, array: Array) -> Array:
        number = self.number
        if self.replaces.dtype != bool or number.dtype not in (jnp.float32, jnp.uint16, jnp.int32):
            raise TypeError(
                "something has computed with the updates of active weights: let nothing change the updates that "
                "sparsify gives. Put transformations inside: sparsify(optax.chain(...), ...)."
            )
        new = number if number.dtype == array.dtype else lax.bitcast_convert_type(number, array.dtype)
        return jnp.where(self.replaces, new, array + number if self.adds else array)


def change_of(weight: ActiveWeight, update: Array, topology: Topology, moved: Array) -> ActiveWeight:
    """The update of a weight, for ``optax.apply_updates``.

    Args:
        weight: before the step.
        update: of its values; where they have moved, the new values.
        topology: after the step.
        moved: bool scalar, whether the topology has moved.
    """
    told = jnp.ones((), bool)
    changes: dict[str, Any] = {
        "values": Change(update, moved, adds=True, dtype=weight.values.dtype),
        "columns": Change(topology.columns, moved, adds=False, dtype=weight.columns.dtype),
        "pointers": Change(topology.pointers, moved, adds=False, dtype=weight.pointers.dtype),
        "marks": Change(topology.marks, told, adds=False, dtype=weight.marks.dtype),
    }
    return replace(weight, **changes)
