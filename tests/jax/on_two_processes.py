"""One of two processes, with two devices each, that train together: the masks of one process, and all looks at them."""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rigl_backends.jax import apply_masks, check_replicas, masks, sparsify, table
from rigl_core import RigL, UpdateSchedule

TX = sparsify(optax.adam(1e-3), RigL(0.8, schedule=UpdateSchedule(end=100, every=1)))
SHAPE = (64, 32)
STEPS = 3


def main(address: str, process: int) -> None:
    """Train alone, in shards over both processes, and with a copy in each."""
    jax.distributed.initialize(address, 2, process)
    assert (len(jax.local_devices()), len(jax.devices())) == (2, 4)
    mesh = Mesh(np.array(jax.devices()), ("x",))
    alone, active = train(jnp.asarray)
    for spec in (PartitionSpec(None, "x"), PartitionSpec()):
        mask, together = train(lambda x, spec=spec: jax.device_put(x, NamedSharding(mesh, spec)))
        assert active == together
        assert np.array_equal(mask, alone), spec
    with_other_copies()
    print("as one process")


def train(place: Any) -> tuple[Any, Any]:
    """The mask after some steps with given gradients, and the counts of the table."""
    rng = np.random.default_rng(0)
    params = {"kernel": place(rng.normal(size=SHAPE).astype(np.float32))}
    state = TX.init(params)
    params = apply_masks(params, state)
    for _ in range(STEPS):
        gradients = {"kernel": place(rng.normal(size=SHAPE).astype(np.float32))}
        params, state = descend(params, state, gradients)
    check_replicas(state)
    mask = masks(state, params)["kernel"]
    assert mask.sharding.is_equivalent_to(params["kernel"].sharding, 2)
    whole = mask if mask.is_fully_addressable else multihost_utils.process_allgather(mask, tiled=True)
    return np.asarray(whole), table(state, params).active


def with_other_copies() -> None:
    """Copies that differ between the processes are found by `check_replicas`, those in a process by each look."""
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec())
    params = {"kernel": jax.device_put(np.zeros(SHAPE, np.float32), everywhere)}
    state = TX.init(params)
    own = [shard.data for shard in state.masks["kernel"].addressable_shards]
    for look, copies in (
        (check_replicas, [mask ^ (jax.process_index() == 1) for mask in own]),
        (lambda state: table(state, params), [own[0], ~own[1]]),
    ):
        mask = jax.make_array_from_single_device_arrays(SHAPE, everywhere, copies)
        with pytest.raises(ValueError, match="copies differ between devices, of 'kernel': all devices must"):
            look(state._replace(masks={"kernel": mask}))


@jax.jit
def descend(params: Any, state: Any, gradients: Any) -> Any:
    """The optimizer's part of a step."""
    updates, state = TX.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
