"""Small-dense: a narrower dense network with as many weights as the sparse one (RigL paper, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from rigl_core.costs.network import Network
from rigl_core.model.layers import Layer
from rigl_core.model.numbers import check_integer, decimal

MakeNetwork = Callable[[float], Sequence[Layer]]


def weight_count(network: Sequence[Layer]) -> int:
    """All weights: of a `Network` also those that are always dense. Biases and norms are no layers."""
    layers = network.weights if isinstance(network, Network) else network
    return sum(layer.size for layer in layers)


def matching_width(make_network: MakeNetwork, active: int, *, lowest: float = 0.01, highest: float = 1.0) -> float:
    """The width at which a dense network has as many weights as a sparse one, or as nearly so as any width.

    The baseline that the RigL paper calls Small-Dense. As channels are whole numbers, the count rises in steps;
    the step next to ``active`` is found exactly, by bisection down to neighboring floats, and of the widths on it
    the one with the fewest decimals is returned. Of two steps equally near, it is the smaller.

    The paper's own networks are wider: ResNet-50 at widths 0.465 and 0.34 has 23.6 % and 13.3 % of the weights, not
    20 % and 10 %. Nearer to that come 23.1 % and 13.1 %, what the sparse networks take in bytes, with one bit of mask
    for each weight: to match bytes, give a quarter of ``sum(costs.weight_bytes())`` as ``active``.

    Args:
        make_network: the network of a width, such as `rigl_core.costs.specs.resnet50` or
            ``lambda width: specs.mlp(784, int(300 * width), int(100 * width), 10)``. Its weights must not become
            fewer as the width grows.
        active: weights to match: ``sum(plan.active)``, and those of layers that are always dense.
        lowest: smallest width to consider.
        highest: largest width to consider.

    Raises:
        TypeError, ValueError: naming the parameter, if no width from ``lowest`` to ``highest`` gives a network
            without empty layers that small or that large, or the weights become fewer as the width grows.
    """
    active = check_integer("active", active, 1)
    low, high = float(decimal(lowest, "lowest")), float(decimal(highest, "highest"))
    if not 0 <= low <= high:
        raise ValueError(f"lowest is {lowest} and highest is {highest}: they must be at least 0, and in this order.")
    low = _first(lambda width: _whole(make_network(width)), low, high)
    fewest, most = (weight_count(make_network(width)) for width in (low, high))
    if not _whole(make_network(high)) or not fewest <= active <= most:
        raise ValueError(
            f"active is {active:,}, and no width fits: whole networks from width {lowest} to {highest} have from "
            f"{fewest:,} to {most:,} weights. Widen the range, or match another network."
        )
    counts = {low: fewest, high: most}

    def count(width: float) -> int:
        if width not in counts:
            counts[width] = weight_count(make_network(width))
            _check_order(counts, width)
        return counts[width]

    above = _first(lambda width: count(width) > active, low, high)
    below = math.nextafter(above, 0) if count(above) > active else above
    nearest = below if active - count(below) <= count(above) - active else above
    start = _first(lambda width: count(width) >= count(nearest), low, nearest)
    end = _first(lambda width: count(width) > count(nearest), nearest, high)
    last = math.nextafter(end, 0) if count(end) > count(nearest) else end
    return _fewest_decimals(start, last)


def _first(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest float from ``low`` at which ``holds`` begins to be true; ``high`` if it is not true before."""
    if holds(low):
        return low
    while low < (middle := low + (high - low) / 2) < high:
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _whole(network: Sequence[Layer]) -> bool:
    """Whether no layer is empty."""
    return all(layer.size for layer in network)


def _check_order(counts: dict[float, int], width: float) -> None:
    """Refuse a count that is out of order among those of other widths."""
    for other, count in counts.items():
        if (other - width) * (count - counts[width]) < 0:
            raise ValueError(
                f"make_network gives {counts[width]:,} weights at width {width}, and {count:,} at width {other}: "
                "the weights must not become fewer as the width grows."
            )


def _fewest_decimals(start: float, last: float) -> float:
    """Of the floats from ``start`` to ``last``, the smallest of those with the fewest decimals."""
    for digits in range(18):
        candidate = float(Fraction(math.ceil(decimal(start, "start") * 10**digits), 10**digits))
        if start <= candidate <= last:
            return candidate
    return start
