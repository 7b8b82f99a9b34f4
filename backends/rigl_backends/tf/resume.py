"""`resume`: a training that goes on in another storage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras

from rigl_backends.keras_common.variables import check_keras
from rigl_backends.tf.active_kernel import ActiveKernel
from rigl_backends.tf.layer import Kept
from rigl_backends.tf.moving import exchange
from rigl_backends.tf.optimizer import SparseOptimizer
from rigl_backends.tf.state import PerWeight
from rigl_backends.tf.storage import become_active, chosen, renew, state_held
from rigl_backends.tf.support import owners_of
from rigl_core.adapter import Index, Storage, errors, saved_indices


def resume(optimizer: SparseOptimizer, *, model: keras.layers.Layer, storage: Storage) -> SparseOptimizer:
    """Go on with a training in another storage, at any step: nothing of it is lost.

    A checkpoint is loaded in the storage that it was saved with, and then::

        model = keras.models.load_model("masks.keras")
        optimizer = rigl_backends.tf.resume(model.optimizer, model=model, storage="active")
        model.compile(optimizer, loss)

    Kernels and the optimizer's state change their form in place, as in `sparsify`; masks, step and what the recipe
    remembers stay as they are. Functions of your own that were traced before give NaN: trace them again.

    Args:
        optimizer: the one that `sparsify` made, or that was loaded; it cannot be used any more after this.
        model: the model that it trains.
        storage: ``"masks"``, ``"active"``, or a dict of both words by name pattern; as for `sparsify`.

    Returns:
        The optimizer to go on with, around the same inner optimizer.

    Raises:
        TypeError, ValueError: naming the parameter or the layer; nothing has been changed then.
    """
    _check(optimizer, model)
    training, plan = optimizer._built_training(), optimizer.plan
    variables, positions = list(optimizer._trainable_variables), list(optimizer._positions or ())
    of_layers = [variables[position] for position in positions]
    active = chosen(plan, model, of_layers, optimizer.inner_optimizer, storage) if storage != "masks" else ()
    changing = set(active) ^ training.active.layers.keys()
    state = state_held(optimizer.inner_optimizer, variables, [positions[i] for i in sorted(changing)])
    training.tell_outside()
    layers = training.layers
    masks = {plan.layers[i].name: layers[i].mask for i in changing & set(active)}
    indices = saved_indices(plan, sorted(changing & set(active)), masks)
    kept = {i: Kept(None if i in active else one.mask, one.whole_memory()) for i, one in layers.items()}
    owners = owners_of(model)
    for i in sorted(changing):
        _change(owners[id(of_layers[i])][0], indices.get(i), state.get(positions[i], ()))
    renew(model, optimizer.inner_optimizer)
    return _gone_on(optimizer, kept)


def _check(optimizer: Any, model: Any) -> None:
    """Refuse what is no training that stands between two steps, or another model."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError("optimizer is a LossScaleOptimizer: give its inner_optimizer, and put a new one outside.")
    if not isinstance(optimizer, SparseOptimizer):
        raise errors.wrong_type("optimizer", optimizer, "SparseOptimizer that sparsify gave")
    check_keras("model", model, keras.layers.Layer, "keras.Model")
    own = {id(variable) for variable in optimizer._trainable_variables}
    if own - {id(variable) for variable in model.trainable_variables}:
        raise ValueError("model does not have the variables that the optimizer trains: give the model that it trains.")
    inner = optimizer.inner_optimizer
    if inner.gradient_accumulation_steps and int(inner._iterations.numpy()) % inner.gradient_accumulation_steps:
        raise ValueError(
            "optimizer has accumulated gradients for a step that is not made yet: make it first, "
            f"{inner.gradient_accumulation_steps} calls after the last one."
        )


def _change(layer: keras.layers.Layer, index: Index | None, state: Collection[PerWeight]) -> None:
    """Bring one layer to the other storage: to active weights of an index, or to a mask."""
    if index is not None:
        become_active(layer, index, index.values(layer.kernel.numpy()), list(state))
        return
    assert isinstance(layer, ActiveKernel)
    index = layer.index
    for own in state:
        outside = 0 if own.fresh is None else own.fresh
        exchange(own.variable, index.dense(own.variable.numpy(), outside).reshape(layer.link.shape))
    layer.become_dense()


def _gone_on(optimizer: SparseOptimizer, kept: Mapping[int, Kept]) -> SparseOptimizer:
    """A new optimizer in the place of this one, whose model has its new form already."""
    inner, layers, positions = optimizer.inner_optimizer, optimizer._layers, optimizer._positions
    made = SparseOptimizer(inner, optimizer.recipe, layers=layers, positions=positions, name=optimizer.name)
    made.__dict__.update(_others=optimizer.__dict__["_others"], _kept=kept)
    made._awaits_state = True  # no scores are asked for
    made.build(optimizer._trainable_variables)
    made._awaits_state = False
    made._iterations.assign(optimizer.step)
    old, new = optimizer._built_training(), made._built_training()
    new.deferred.assign(old.deferred)
    optimizer._training = None
    return made
