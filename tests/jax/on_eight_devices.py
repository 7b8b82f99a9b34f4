"""Train on one device and on eight, in several layouts: the same masks, and no device gets more than its shards."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from dataclasses import replace
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rigl_backends.jax import apply_masks, masks, sparsify, table
from rigl_core import GRADIENT_BY_OUTPUT, MAGNITUDE, NM, SET, SNFS, RigL, SRigLAsPublished, UpdateSchedule

SCHEDULE = UpdateSchedule(end=100, every=1)
RIGL = RigL(0.8, schedule=SCHEDULE, initial=MAGNITUDE)
SHAPES = {"matrix": (128, 64), "kernel": (8, 4, 16, 16)}
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
ROWS, COLUMNS, BOTH, HALF = (("x", "y"),), (None, ("x", "y")), ("y", "x"), (None, "y")
CASES = {
    "layouts": (RIGL, [(AUTO, ROWS), (AUTO, HALF), (EXPLICIT, BOTH)]),
    "redistribution": (SNFS(0.8, schedule=SCHEDULE), [(AUTO, BOTH)]),
}
STEPS = 3
GATHERED = (
    RigL(schedule=SCHEDULE, structure=NM(2, 4)),
    SRigLAsPublished(0.8, schedule=SCHEDULE),
    RigL(0.8, schedule=SCHEDULE, floor=1, grow=GRADIENT_BY_OUTPUT),
    RigL(0.8, schedule=SCHEDULE, scope="global"),
    replace(SNFS(0.8, schedule=SCHEDULE), scope="global"),
)
"""Recipes that look at whole layers."""


def main(way: str) -> None:
    """Do what the command line says."""
    assert len(jax.devices()) == 8
    if way == "memory":
        large_update_holds_shards()
    elif way == "copies":
        copies_that_differ_are_told()
    elif way == "explicit":
        explicit_meshes_gather()
    else:
        recipe, layouts = CASES[way]
        alone = train(recipe, jnp.asarray)
        for kind, spec in layouts:
            for name, mask in train(recipe, place_by(spec, kind)).items():
                assert np.array_equal(mask, alone[name]), f"{kind}, {spec}, {name}"
    print("as on one device")


def place_by(spec: tuple[Any, ...], kind: AxisType) -> Any:
    """A function that lays an array out on a mesh of 4 x 2 devices."""
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    return lambda leaf: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))


def train(recipe: Any, place: Any) -> dict[str, Any]:
    """The masks after some steps. Many weights and many gradients are equal."""
    rng = np.random.default_rng(0)

    def draw() -> Any:
        return {name: place(rng.integers(-3, 4, shape).astype(np.float32)) for name, shape in SHAPES.items()}

    tx, params = sparsify(optax.adam(1e-3), recipe), draw()
    state = tx.init(params)
    assert_lie_as(params, state)
    params = apply_masks(params, state)
    step = compiled_step(tx, params, state)
    assert max(collectives(step.as_text()), default=0) < 100
    for _ in range(STEPS):
        params, state = step(params, state, draw())
    assert_lie_as(params, state)
    found = {name: np.asarray(mask) for name, mask in masks(state, params).items()}
    assert table(state, params).active == tuple(mask.sum() for mask in found.values())
    return found


def explicit_meshes_gather() -> None:
    """Recipes that look at whole layers gather them, also where JAX's types tell of shards."""
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(EXPLICIT, EXPLICIT))
    for recipe in (*GATHERED, SET(0.8, schedule=SCHEDULE)):
        alone = masks_after(recipe, jnp.asarray)
        for set_mesh in (False, True):
            with jax.set_mesh(mesh) if set_mesh else contextlib.nullcontext():
                found = masks_after(recipe, place_by(BOTH, EXPLICIT))
            assert all(np.array_equal(found[name], alone[name]) for name in alone), f"{recipe.method}, {set_mesh}"


def masks_after(recipe: Any, place: Any) -> dict[str, Any]:
    """The masks of two matrices after some steps."""
    rng, shapes = np.random.default_rng(0), {"a": (16, 32), "b": (32, 8)}

    def draw() -> Any:
        return {name: place(rng.integers(-3, 4, shape).astype(np.float32)) for name, shape in shapes.items()}

    params = draw()
    tx = sparsify(optax.adam(1e-3), recipe, axes={"*": ((0,), (1,))})
    state = tx.init(params)
    params = apply_masks(params, state)
    assert_lie_as(params, state)
    step = jax.jit(tx.update)
    for _ in range(STEPS):
        updates, state = step(draw(), state, params)
        params = optax.apply_updates(params, updates)
    assert_lie_as(params, state)
    return {name: np.asarray(mask) for name, mask in masks(state, params).items()}


def assert_lie_as(params: Any, state: Any) -> None:
    """Masks and memory are sharded like the weights."""
    for arrays in (state.masks, *state.memory.values()):
        for name, array in arrays.items():
            assert array.sharding.is_equivalent_to(params[name].sharding, array.ndim), name


def compiled_step(tx: Any, params: Any, state: Any) -> Any:
    """The optimizer's part of a step."""

    def descend(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(descend, donate_argnums=(0, 1)).lower(params, state, params).compile()


def large_update_holds_shards() -> None:
    """The temporary arrays of an update are a few times as large as the shards of a layer."""
    place, (rows, columns) = place_by(COLUMNS, AUTO), (1024, 2048)
    params = {"matrix": place(jnp.ones((rows, columns)))}
    tx = sparsify(optax.sgd(0.1), RIGL)
    program = compiled_step(tx, params, tx.init(params))
    assert max(collectives(program.as_text())) < 100
    assert program.memory_analysis().temp_size_in_bytes < 6 * 4 * rows * columns / 8


def copies_that_differ_are_told() -> None:
    """A step in which devices forget to average their gradients is found at the next look."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AUTO,))
    params = {"matrix": jax.device_put(np.ones((16, 16), np.float32), NamedSharding(mesh, PartitionSpec()))}
    tx, own = sparsify(optax.sgd(0.1), RIGL), np.random.default_rng(0).normal(size=(8, 16, 16)).astype(np.float32)
    state = tx.init(params)
    params = apply_masks(params, state)
    specs = (PartitionSpec(), PartitionSpec(), PartitionSpec("x"))

    def after(gradient_of: Any, *, check_vma: bool) -> Any:
        def descend(params: Any, state: Any, own: Any) -> Any:
            updates, state = tx.update({"matrix": gradient_of(own[0])}, state, params)
            return optax.apply_updates(params, updates), state

        step = jax.shard_map(descend, mesh=mesh, in_specs=specs, out_specs=specs[:2], check_vma=check_vma)
        return jax.jit(step)(params, state, own)[::-1]

    assert table(*after(lambda gradient: jax.lax.pmean(gradient, "x"), check_vma=True)).active[0] < 16 * 16
    with pytest.raises(ValueError, match="copies differ between devices, of 'matrix'"):
        table(*after(lambda gradient: gradient, check_vma=False))


def collectives(text: str) -> list[int]:
    """The sizes of what devices send each other."""
    names = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    results = re.findall(rf"= (.*) (?:{names})(?:-start)?\(", text)
    shapes = [shape for result in results for shape in re.findall(r"\w\[([\d,]*)\]", result)]
    return [math.prod(map(int, shape.split(","))) if shape else 1 for shape in shapes]


if __name__ == "__main__":
    main(sys.argv[1])
