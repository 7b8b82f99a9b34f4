"""Units without connections, and connections on no path, against a count one by one."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_core import History, Layer, SparsityWarning
from rigl_core.inspect import on_no_path, scalars, units
from rigl_core.inspect.waste import Units, empty_share

LAYERS = [
    Layer("linear", (5, 7), in_axes=(1,), out_axes=(0,)),
    Layer("flipped", (7, 5), in_axes=(0,), out_axes=(1,)),
    Layer("conv", (6, 4, 3, 2), in_axes=(1,), out_axes=(0,)),
    Layer("attention", (4, 3, 2), in_axes=(0,), out_axes=(1, 2)),
    Layer("grouped", (6, 2, 3), in_axes=(1,), out_axes=(0,), groups=3),
    Layer("transposed", (6, 2, 3), in_axes=(0,), out_axes=(1,), groups=3, grouped_axes="out"),
    Layer("stack", (3, 4, 5), in_axes=(1,), out_axes=(2,), stacked=(0,)),
    Layer("gates", (12, 5), in_axes=(1,), out_axes=(0,), fused=(0, 3)),
    Layer("stack of gates", (2, 5, 6), in_axes=(1,), out_axes=(2,), stacked=(0,), fused=(2, 3)),
]


def one_by_one(layer: Layer, mask: np.ndarray[Any, Any]) -> tuple[dict[Any, int], dict[Any, int]]:
    """The connections of each output and of each input, by what names them."""
    fan_in: dict[Any, int] = {}
    fan_out: dict[Any, int] = {}
    axis, parts = layer.fused or (-1, 1)
    for at in product(*map(range, layer.shape)):
        own = tuple(at[i] for i in layer.stacked)
        part = at[axis] // (layer.shape[axis] // parts) if layer.fused else 0
        output, inputs = (tuple(at[i] for i in axes) for axes in (layer.out_axes, layer.in_axes))
        if layer.groups > 1:
            side, sizes = (output, layer.n_out) if layer.grouped_axes == "in" else (inputs, layer.n_in)
            part = side[0] // (sizes // layer.groups)
        for fans, unit in ((fan_in, (own, part, output)), (fan_out, (own, part, inputs))):
            fans[unit] = fans.get(unit, 0) + int(mask[at])
    return fan_in, fan_out


@given(st.sampled_from(LAYERS), st.data())
def test_units_are_counted_one_by_one(layer: Layer, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.integers(0, 5), min_size=layer.size, max_size=layer.size))
    mask = (np.array(bits) == 0).reshape(layer.shape)
    fan_in, fan_out = one_by_one(layer, mask)
    active = int(mask.sum())
    assert units([layer], {layer.name: mask})[layer.name] == Units(
        outputs=len(fan_in),
        empty=sum(n == 0 for n in fan_in.values()),
        inputs=len(fan_out),
        unread=sum(n == 0 for n in fan_out.values()),
        most_in=max(fan_in.values()) / active if active else 0,
        most_out=max(fan_out.values()) / active if active else 0,
    )


def test_layers_without_axes_or_masks_are_left_out() -> None:
    unknown = Layer("unknown", (3, 4))
    assert list(units([unknown, LAYERS[0]], {"unknown": np.ones((3, 4), bool)})) == []
    with pytest.raises(ValueError, match=r"masks has the shape \(7, 5\) for layer 'linear'"):
        units(LAYERS, {"linear": np.ones((7, 5), bool)})


CHAIN = [Layer("a", (3, 4), (1,), (0,)), Layer("b", (2, 3), (1,), (0,))]


def masks() -> dict[str, np.ndarray[Any, Any]]:
    """Of three hidden units, one has no input and one is not read; one of two paths is left."""
    a, b = np.zeros((3, 4), bool), np.zeros((2, 3), bool)
    a[0, 0] = a[1, 1] = a[1, 2] = True
    b[0, 0] = b[1, 2] = True
    return {"a": a, "b": b}


def test_connections_on_no_path() -> None:
    assert on_no_path(CHAIN, masks(), ["a", "b"]) == 1 - 2 / 5
    assert on_no_path(CHAIN, {}, ["a", "b"]) == 0
    with pytest.raises(ValueError, match="chain names 'c', which is no layer: the layers are a, b"):
        on_no_path(CHAIN, masks(), ["a", "c"])


def test_scalars_name_what_is_wasted() -> None:
    values = scalars(masks(), layers=CHAIN, chain=["a", "b"])
    assert values["empty"] == 1 / 5
    assert (values["empty/a"], values["empty/b"]) == (1 / 3, 0)
    assert (values["most_in/a"], values["most_out/a"]) == (2 / 3, 1 / 3)
    assert values["on_no_path"] == 1 - 2 / 5
    assert scalars(masks()).keys() == {"density", "density/a", "density/b"}


def test_a_history_tells_of_waste_once() -> None:
    history = History(CHAIN, chain=["a", "b"], waste=0.19)
    with pytest.warns(SparsityWarning, match=r"20 % of the layers' outputs have no active connection: 1 of 3 in 'a'"):
        snapshot = history.add(0, masks())
    assert snapshot.units == units(CHAIN, masks())
    assert (snapshot.empty, snapshot.on_no_path) == (empty_share(snapshot.units), 1 - 2 / 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history.add(1, masks())
        assert History(CHAIN, waste=0.2).add(0, masks()).on_no_path is None
        plain = History().add(0, masks())
    assert (plain.units, plain.empty) == ({}, None)


@pytest.mark.parametrize("waste", [-0.1, 1.5, "much"])
def test_a_limit_that_is_no_share(waste: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="waste is"):
        History(CHAIN, waste=waste)
