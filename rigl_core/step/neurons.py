"""An update of a layer with constant fan-in that takes whole neurons away (SRigL: Lasby et al. 2024, section 3.1)."""

from __future__ import annotations

from fractions import Fraction

from rigl_core.arrays import topology
from rigl_core.arrays.namespace import Array, Namespace, add, count
from rigl_core.plan import Counts


def fewer_neurons(
    drop_scores: Array, grow_scores: Array, mask: Array, counts: Counts, gamma_sal: float, *, xp: Namespace
) -> tuple[Array, Array]:
    """The topology after one update, and the connections that it keeps (contract: M12).

    All arrays have the shape (neurons, connections of each).

    Args:
        drop_scores: >= 0, without NaN.
        grow_scores: >= 0, without NaN.
        mask: bool array, the current topology.
        counts: what each neuron keeps and grows as long as all stay.
        gamma_sal: the share of the planned fan-in that a neuron's salient connections must reach.
        xp: the arrays' namespace.
    """
    neurons, connections = mask.shape
    fan_in = counts.keep + counts.grow
    best, salient = _salient(drop_scores, grow_scores, mask, counts, xp)

    number = count(salient, xp=xp)
    enough = xp.reshape(number >= _threshold(fan_in, gamma_sal), (-1,))
    fewest = (neurons * fan_in - 1) // connections + 1  # rounded up; no sum is larger than int32 holds
    left = add(enough, xp=xp)
    left = xp.where(left < fewest, left * 0 + fewest, left)
    stays = xp.reshape(topology.top_k_mask(xp.reshape(number, (-1,)), left, xp=xp), (-1, 1))

    fan_in = neurons * fan_in // left
    lowest = xp.full_like(drop_scores, -1)
    kept = topology.top_k_mask(xp.where(best, drop_scores, lowest), fan_in, xp=xp) & best & stays
    return topology.top_k_with(kept, grow_scores, fan_in, xp=xp) & stays, kept


def _salient(drop_scores: Array, grow_scores: Array, mask: Array, counts: Counts, xp: Namespace) -> tuple[Array, Array]:
    """What the layer as a whole keeps by magnitude, and this with what it would grow: RigL's own new topology."""
    neurons = mask.shape[0]
    flat = xp.reshape(mask, (-1,))
    active, keep = add(flat, xp=xp), neurons * counts.keep
    keep = xp.where(active < keep, active, active * 0 + keep)  # fewer, after neurons were taken away
    scores = (xp.reshape(drop_scores, (-1,)), xp.reshape(grow_scores, (-1,)))
    new, kept = topology.updated_mask(*scores, flat, keep, neurons * counts.grow, xp=xp)
    return xp.reshape(kept, mask.shape), xp.reshape(new, mask.shape)


def _threshold(fan_in: Array | int, gamma_sal: float) -> Array | int:
    """``gamma_sal`` times the fan-in, rounded up: at least 1, unless the fan-in is 0. All products fit into int32."""
    share = Fraction(str(gamma_sal))
    whole, rest = fan_in // share.denominator, fan_in % share.denominator
    return whole * share.numerator + (rest * share.numerator + share.denominator - 1) // share.denominator
