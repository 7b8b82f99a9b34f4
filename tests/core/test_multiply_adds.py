"""The functions with which adapters count the products of each weight."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rigl_core import Layer
from rigl_core.costs.multiply_adds import MultiplyAdds, made_of, positions_of

parts = st.none() | st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), max_size=3)


@given(st.lists(parts, max_size=4), st.booleans())
def test_what_an_input_went_into_is_made_of_nothing_known(inputs: list[dict[str, int] | None], joined: bool) -> None:
    result = made_of(inputs, joined=joined)
    assert (result is None) == (None in inputs)
    if result is not None and joined:
        assert set(result) == {name for known in inputs if known for name in known}
    elif result is not None:
        assert result in (inputs or [{}])


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1), st.integers(0, 50))
def test_joined_weights_are_used_equally(factor: dict[str, int], uses: int) -> None:
    counted = MultiplyAdds([])
    counted.add([None, {}, factor], uses * sum(factor.values()))
    layers = [Layer(name, (size,)) for name, size in factor.items()]
    assert set(positions_of(layers, counted.by_name).values()) == {uses}
    assert counted.by_name.total() == uses * sum(factor.values())


def test_of_two_weights_the_chosen_one_counts_and_else_the_first() -> None:
    counted = MultiplyAdds([Layer("chosen", (4,))])
    for factors in (
        [{"other": 2}, {"chosen": 4}],
        [{"chosen": 4}, {"other": 2}],
        [{"other": 2}, {"third": 3}],
        [None, {}],
    ):
        counted.add(factors, 12)
    assert counted.by_name == {"chosen": 24, "other": 12}


def test_positions_are_whole_where_they_can_be() -> None:
    layers = [Layer("a", (4,)), Layer("b", (4,)), Layer("unused", (4,)), Layer("empty", (0, 3))]
    positions = positions_of(layers, {"a": 24, "b": 20}, examples=2)
    assert positions == {"a": 3, "b": 2.5, "unused": 0, "empty": 0}
    assert [type(value) for value in positions.values()] == [int, float, int, int]
