"""Numbers about a topology for a log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rigl_core.inspect.masks import Masks, churn, density, moved
from rigl_core.inspect.waste import empty_share, on_no_path, units
from rigl_core.model.layers import Layer


def scalars(
    masks: Masks,
    before: Masks | None = None,
    ever: Masks | None = None,
    *,
    layers: Iterable[Layer] = (),
    chain: Sequence[str] = (),
) -> dict[str, float]:
    """Numbers to log about a topology, by name, for example as scalars of TensorBoard.

    Args:
        masks: the current masks.
        before: the masks before the last update; if given, the result also has the moved shares.
        ever: the last result of `ever_active`; if given, the result also has R_s.
        layers: such as ``sparse.plan.layers``; if given, the result also has ``empty``, the share of outputs without an
            active connection, and for each layer the largest shares of its active connections that one output
            (``most_in``) and one input (``most_out``) hold.
        chain: names of layers that read each other's outputs in this order, and nothing else; if given with ``layers``,
            the result also has ``on_no_path``, the share of their active connections on no path.
    """
    values = {"density": density(masks)}
    values |= {f"density/{name}": density({name: mask}) for name, mask in masks.items()}
    if before is not None:
        values["moved"] = churn(before, masks)
        values |= {f"moved/{name}": share for name, share in moved(before, masks).items()}
    if ever is not None:
        values["R_s"] = density(ever)
    layers = tuple(layers)
    if found := units(layers, masks):
        values["empty"] = empty_share(found)
        for name, each in found.items():
            values |= {f"empty/{name}": each.empty_share}
            values |= {f"most_in/{name}": each.most_in, f"most_out/{name}": each.most_out}
    if chain:
        values["on_no_path"] = on_no_path(layers, masks, chain)
    return values
