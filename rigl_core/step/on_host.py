"""The update of a layer that chooses freely, by NumPy, which reads the scores part by part."""

from __future__ import annotations

import numpy as np

from rigl_core.arrays import topology
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array
from rigl_core.parts.criteria import Criterion
from rigl_core.parts.slices import parts_of_slices
from rigl_core.recipe.rule import Rule
from rigl_core.step.scoring import host_namespace, scores_of
from rigl_core.step.workers import Mask, any_normal


def choose_on_host(rule: Rule, like: Connections, mask: Mask, keep: Array, grow: Array, *arrays: Array) -> Mask:
    """The new mask of a layer that chooses freely, or of one whose slices do.

    Args:
        rule: the rule that chooses.
        like: connections with the same fields, to be filled with ``arrays``.
        mask: the current mask, flat.
        keep: the number of connections to keep, in each slice.
        grow: the number of connections to grow, in each slice.
        *arrays: the arrays of the connections, as in `Connections.arrays`.
    """
    connections = like.with_arrays(arrays)
    if connections.layer is None or connections.layer.slices == 1:
        return _chosen(rule, connections, mask, int(keep), int(grow))
    new = np.empty_like(mask)
    for part in parts_of_slices(connections.layer):
        new[part] = _chosen(rule, connections[part], mask[part], int(keep), int(grow))
    return new


def _chosen(rule: Rule, connections: Connections, mask: Mask, keep: int, grow: int) -> Mask:
    if not any_normal(connections.gradient, mask, outside=rule.sees_inactive):
        return mask
    drop_scores = scores_of(rule.drop, _read_by(rule.drop, connections.for_dropping))
    grow_scores = None if rule.grow is None else scores_of(rule.grow, _read_by(rule.grow, connections))
    chosen: Mask = topology.updated_mask(drop_scores, grow_scores, mask, keep, grow, xp=host_namespace)[0]
    return chosen


def _read_by(criterion: Criterion, connections: Connections) -> Connections:
    """The connections without a gradient that the criterion does not read: there is less to cut into parts."""
    return connections if criterion.reads_gradient else connections.replace(gradient=None)
