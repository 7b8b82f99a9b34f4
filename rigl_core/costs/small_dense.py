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
    """The number of weights of all layers; a `Network` counts with its layers that are always dense."""
    layers = network.weights if isinstance(network, Network) else network
    return sum(layer.size for layer in layers)


def matching_width(make_network: MakeNetwork, active: int, *, lowest: float = 0.01, highest: float = 1.0) -> float:
    """The width at which the number of weights of a dense network is nearest to that of a sparse one.

    The RigL paper calls this baseline Small-Dense. Channels are whole numbers, so the number of weights rises in steps
    as the width grows. Bisection down to neighboring floats finds the step that is nearest to ``active``; if two steps
    are equally near, the smaller one. The result is the width on this step that has the fewest decimals.

    The paper's own networks are wider: ResNet-50 at widths 0.465 and 0.34 has 23.6 % and 13.3 % of the weights, not
    20 % and 10 %. That is close to the bytes of the sparse networks, 23.1 % and 13.1 % with one bit of mask for each
    weight. To match bytes, give a quarter of ``sum(costs.weight_bytes())`` as ``active``.

    Args:
        make_network: makes the network of a width, such as `rigl_core.costs.specs.resnet50` or
            ``lambda width: specs.mlp(784, int(300 * width), int(100 * width), 10)``. The number of weights must not
            fall as the width grows.
        active: the number of weights to match: ``sum(plan.active)``, plus the weights of layers that are always dense.
        lowest: smallest width to consider.
        highest: largest width to consider.

    Raises:
        TypeError, ValueError: the message names the parameter. No width from ``lowest`` to ``highest`` may fit
            (networks with empty layers do not count), or the number of weights may fall as the width grows.
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
    """The smallest float from ``low`` on for which ``holds`` is true; ``high`` if there is none below it."""
    if holds(low):
        return low
    while low < (middle := low + (high - low) / 2) < high:
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _whole(network: Sequence[Layer]) -> bool:
    """Whether no layer is empty."""
    return all(layer.size for layer in network)


def _check_order(counts: dict[float, int], width: float) -> None:
    """Refuse a count that is lower than that of a smaller width, or higher than that of a larger one."""
    for other, count in counts.items():
        if (other - width) * (count - counts[width]) < 0:
            raise ValueError(
                f"make_network gives {counts[width]:,} weights at width {width}, and {count:,} at width {other}: "
                "the weights must not become fewer as the width grows."
            )


def _fewest_decimals(start: float, last: float) -> float:
    """The float from ``start`` to ``last`` with the fewest decimals; the smallest of several."""
    for digits in range(18):
        candidate = float(Fraction(math.ceil(decimal(start, "start") * 10**digits), 10**digits))
        if start <= candidate <= last:
            return candidate
    return start
