"""A training that saves itself, goes on from what it finds, and may be killed: ``killed.py FRAMEWORK FOLDER [STEP]``.

With a step, the process kills itself there, as ``kill -9`` does. What the training ends with lies in FOLDER/end.npz.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "examples" / "tools"))

from images import Dataset, batches, load
from rigl_core import RigL, UpdateSchedule

STEPS, EVERY = 30, 7
"""The steps of a training, and those between two checkpoints. Topologies move at steps 0, 4, 8 and so on."""
RECIPE = RigL(0.9, schedule=UpdateSchedule(end=28, every=4))


def torch_training(data: Dataset, folder: Path, killed_at: int | None) -> Mapping[str, Any]:
    """A model and AdamW: the topology travels in the optimizer's state."""
    import torch
    from torch import nn

    from rigl_backends.torch import sparsify

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(data.train_images.shape[1], 48), nn.ReLU(), nn.Linear(48, data.n_classes))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    sparse = sparsify(model, optimizer, RECIPE)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    for images, labels in batches(data, STEPS, sparse.step):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
        optimizer.step()
        _kill(sparse.step, killed_at)
        if sparse.step % EVERY == 0:
            written = checkpoint.with_suffix(".new")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, written)
            written.replace(checkpoint)
    moments = {f"moment {at}": state["exp_avg"] for at, state in enumerate(optimizer.state.values())}
    arrays = {name: param.detach() for name, param in model.named_parameters()} | moments
    return arrays | {f"mask {name}": mask for name, mask in sparse.masks.items()}


def jax_training(data: Dataset, folder: Path, killed_at: int | None) -> Mapping[str, Any]:
    """A pair of parameters and optimizer state, saved by orbax."""
    import jax
    import orbax.checkpoint as ocp

    from orbax_loop import Training

    training = Training(data.train_images.shape[1], data.n_classes, STEPS)
    state, done = training.start(), 0
    with ocp.CheckpointManager(folder.resolve() / "checkpoints") as manager:
        if (latest := manager.latest_step()) is not None:
            state, done = manager.restore(latest, args=ocp.args.StandardRestore(state)), latest
        for step in range(done + 1, STEPS + 1):
            state = training.train(state, data, step - 1, step)
            _kill(step, killed_at)
            if step % EVERY == 0:
                manager.save(step, args=ocp.args.StandardSave(state))
                manager.wait_until_finished()
    leaves, _ = jax.tree.flatten(state)
    return {str(at): leaf for at, leaf in enumerate(leaves)}


def keras_training(data: Dataset, folder: Path, killed_at: int | None) -> Mapping[str, Any]:
    """``fit`` with Keras's own callback that saves after each epoch; an epoch has seven steps."""
    import keras

    from rigl_backends.tf import sparsify

    class Killed(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            _kill(self.model.optimizer.step, killed_at)

    keras.utils.set_random_seed(0)
    pixels = data.train_images.shape[1]
    model = keras.Sequential([keras.Input((pixels,)), keras.layers.Dense(48, "relu"), keras.layers.Dense(10)])
    optimizer = sparsify(keras.optimizers.Adam(3e-3), RECIPE, model=model)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    images, labels = (np.concatenate(parts) for parts in zip(*batches(data, EVERY), strict=True))
    saving = keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False)
    options: dict[str, Any] = {"batch_size": len(images) // EVERY, "epochs": 4, "shuffle": False, "verbose": 0}
    model.fit(images, labels, callbacks=[saving, Killed()], **options)
    variables = [*model.variables, *model.optimizer.variables]
    return {str(at): variable.numpy() for at, variable in enumerate(variables)}


def _kill(step: int, killed_at: int | None) -> None:
    if step == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)


TRAININGS = {"torch": torch_training, "jax": jax_training, "keras": keras_training}


def main(framework: str, folder: str, killed_at: str | None = None) -> None:
    """Train, and write what the training ends with."""
    where = Path(folder)
    end = TRAININGS[framework](load("digits"), where, None if killed_at is None else int(killed_at))
    np.savez(where / "end.npz", **{name: np.asarray(array) for name, array in end.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
