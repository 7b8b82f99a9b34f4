"""The width of the small dense network, compared with a trial of every possible weight count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_core import Layer, Static, cost_table, make_plan, matching_width, specs
from rigl_core.costs.small_dense import weight_count
from rigl_core.testing.checks import checks


def steps_at(edges: Sequence[tuple[float, int]]) -> Any:
    """A network that gains weights at each of the edges."""
    return lambda width: [Layer("a", (5 + sum(gain for edge, gain in edges if width >= edge),))]


widths = st.integers(2, 1000).map(lambda thousandths: thousandths / 1000) | st.floats(0.01, 1)
edges = st.lists(st.tuples(widths, st.integers(1, 20)), max_size=6)


@given(edges, st.integers(0, 130))
def test_the_nearest_of_all_counts(edges: list[tuple[float, int]], more: int) -> None:
    network = steps_at(edges)
    counts = sorted({weight_count(network(width)) for width in (0.001, 1.0, *(edge for edge, _ in edges))})
    active = min(5 + more, counts[-1])
    width = matching_width(network, active, lowest=0.001)
    nearest = min(counts, key=lambda count: (abs(count - active), count))
    assert weight_count(network(width)) == nearest
    for digits in range(4):
        fitting = [i / 10**digits for i in range(1, 10**digits + 1) if weight_count(network(i / 10**digits)) == nearest]
        if fitting:  # these have the fewest decimals
            assert width == fitting[0]
            break


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 200_000))
def test_two_layers_by_trying_every_number_of_neurons(hidden1: int, hidden2: int, active: int) -> None:
    def network(width: float) -> Any:
        return specs.mlp(20, int(hidden1 * width), int(hidden2 * width), 10)

    edges = {i / n for n in (hidden1, hidden2) for i in range(1, n + 1)}
    counts = {weight_count(network(edge)) for edge in edges if all(layer.size for layer in network(edge))}
    # At an edge, rounding may leave a neuron out; a width just above the edge has it.
    counts |= {weight_count(network(edge * (1 + 1e-12))) for edge in edges if edge >= 1 / min(hidden1, hidden2)}
    counts = {count for count in counts if count <= weight_count(network(1.0))}
    active = min(max(active, min(counts)), max(counts))
    width = matching_width(network, active, lowest=0.0)
    assert abs(weight_count(network(width)) - active) == min(abs(count - active) for count in counts)


@pytest.mark.parametrize(
    ("sparsity", "width", "share", "authors", "their_share", "by_bytes"),
    [(0.8, 0.4253, 0.1993, 0.465, 0.2360, 0.4605), (0.9, 0.2891, 0.1001, 0.34, 0.1335, 0.3375)],
)
def test_resnet50_beside_the_authors_widths(
    sparsity: float, width: float, share: float, authors: float, their_share: float, by_bytes: float
) -> None:
    """The authors' networks hold more weights than the sparse ones: they have about as many bytes as these."""
    whole = weight_count(specs.resnet50())
    plan = make_plan(Static(sparsity), specs.resnet50())
    assert matching_width(specs.resnet50, sum(plan.active)) == width
    assert round(weight_count(specs.resnet50(width)) / whole, 4) == share
    assert round(weight_count(specs.resnet50(authors)) / whole, 4) == their_share
    stored = round(sum(cost_table(plan, specs.resnet50()).weight_bytes()) / 4)
    assert matching_width(specs.resnet50, stored) == by_bytes


def test_weights_that_are_always_dense_count() -> None:
    network = specs.mobilenet_v1()
    assert weight_count(network) == 4_209_088 == weight_count(tuple(network)) + 44_640


def test_a_width_of_its_own_is_found_again() -> None:
    for width in (1.0, 0.5, 0.465, 0.34, 0.1):
        count = weight_count(specs.resnet50(width))
        found = matching_width(specs.resnet50, count)
        assert weight_count(specs.resnet50(found)) == count
        assert len(str(found)) <= len(str(width))


@checks("P3")
@pytest.mark.parametrize(
    ("active", "options", "message"),
    [
        (9, {}, "active is 9, and no width fits: whole networks .* have from 2,365 to 266,200 weights"),
        (266_201, {}, "active is 266,201, and no width fits"),
        (5000, {"lowest": 0.5}, "from width 0.5 to 1.0 have from"),
        (100_000, {"highest": 0.001, "lowest": 0.0}, "active is 100,000, and no width fits"),
        (0, {}, "active is 0: it must be at least 1"),
        (5, {"lowest": 1, "highest": 0.5}, "lowest is 1 and highest is 0.5: they must be at least 0"),
        (5, {"lowest": -1}, "lowest is -1 and highest"),
    ],
)
def test_what_cannot_be_matched_is_refused(active: int, options: dict[str, float], message: str) -> None:
    def network(width: float) -> Any:
        return specs.mlp(784, int(300 * width), int(100 * width), 10)

    with pytest.raises(ValueError, match=message):
        matching_width(network, active, **options)


@checks("P3")
def test_a_count_that_falls_with_the_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"make_network gives .* must not become fewer as the width grows"):
        matching_width(lambda width: [Layer("a", (1000 if width < 0.5 else 10 + int(width * 1000),))], 1005)
