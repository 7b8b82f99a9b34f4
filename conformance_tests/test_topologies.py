"""Properties of topologies in files (rule P6). They run without a backend."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_core import Layer
from rigl_core.storage import Topology, load, save
from rigl_core.testing.checks import checks


@contextmanager
def a_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "topology.rigl"


@checks("P6")
@given(st.data())
def test_any_axes_and_back(data: st.DataObject) -> None:
    """Connections (output, input, position) are the same, wherever the axes are stored."""
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    axes = range(len(sizes))
    roles = [*data.draw(st.permutations(["in", "out"])), *data.draw(st.lists(st.sampled_from(["in", "kernel"])))]
    roles = [roles[i] if i < len(roles) else "kernel" for i in axes]

    def layer(order: list[int]) -> Layer:
        found = {role: [axis for axis in sorted(axes) if roles[axis] == role] for role in ("in", "out")}
        places = {role: tuple(order.index(axis) for axis in own) for role, own in found.items()}
        return Layer("a", tuple(sizes[axis] for axis in order), places["in"], places["out"])

    first, kernels = list(axes), [axis for axis in axes if roles[axis] == "kernel"]
    order = data.draw(st.permutations(first))
    in_order = iter(kernels)  # positions of a kernel stay in their order
    order = [next(in_order) if roles[axis] == "kernel" else axis for axis in order]
    mask = np.random.default_rng(0).random(sizes) < 0.5
    topology = Topology((layer(first),), {"a": mask})
    turned = topology.for_layers([layer(order)])
    np.testing.assert_array_equal(turned.masks["a"], mask.transpose(order))
    np.testing.assert_array_equal(turned.for_layers(topology.layers).masks["a"], mask)


@checks("P6")
def test_a_file_gives_back_every_connection() -> None:
    rng = np.random.default_rng(0)
    layers = tuple(Layer(f"layer{size}", (size, 3)) for size in range(12))
    topology = Topology(layers, {layer.name: rng.random(layer.shape) < 0.5 for layer in layers}, {"seed": 3}, 7)
    with a_file() as path:
        save(path, topology)
        read = load(path)
    assert (read.layers, read.recipe, read.step) == (layers, {"seed": 3}, 7)
    for layer in layers:
        np.testing.assert_array_equal(read.masks[layer.name], topology.masks[layer.name], strict=True)


@checks("P6")
def test_no_changed_byte_is_read() -> None:
    with a_file() as path:
        save(path, Topology((Layer("a", (4, 5)),), {"a": np.eye(4, 5) > 0}))
        content = path.read_bytes()
        for position in range(len(content)):
            path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
            with pytest.raises(ValueError, match="cannot be read as a topology"):
                load(path)
