"""`sparsify` for PyTorch: one line, after which the training loop is a sparse one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from rigl_backends.torch.handle import SparseTraining, is_sparsified
from rigl_backends.torch.layers import layers_of, parameters_of
from rigl_backends.torch.shard_recipes import check_shards
from rigl_backends.torch.storage import hold_active
from rigl_backends.torch.travel import Parts, take_out, unpack
from rigl_backends.torch.twin import optimizers_in, params_of
from rigl_core.adapter import (
    Axes,
    Fused,
    Initial,
    Layer,
    Plan,
    Recipe,
    Stacked,
    Storage,
    check_changed,
    check_state,
    errors,
    make_plan,
    start_from,
)


def plan(
    model: nn.Module,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> Plan:
    """The plan that `sparsify` would make of this model; nothing is changed. Print it to see the layers.

    Args:
        model: any module, also on the meta device.
        recipe: how to train sparsely.
        layers: as for `sparsify`; so are ``include``, ``exclude``, ``axes``, ``stacked`` and ``fused``.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    chosen = layers_of(model, layers, include, exclude, axes, stacked, fused, unmade=True)
    return _plan(model, recipe, chosen, layers)


def _plan(model: nn.Module, recipe: Recipe, chosen: Sequence[Layer], layers: Sequence[Layer] | None) -> Plan:
    held = set(parameters_of(model, chosen)) if layers is None else set(model.parameters())
    others = {name: param.numel() for name, param in model.named_parameters() if param not in held}
    return make_plan(recipe, chosen, others)


def sparsify(
    model: nn.Module,
    optimizer: Optimizer,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
    scores: Mapping[str, Any] | None = None,
    initial: Initial | None = None,
    changed: Collection[str] = (),
    storage: Storage = "masks",
) -> SparseTraining:
    """Make ``model`` sparse and let ``optimizer.step()`` follow the recipe from now on.

    On ordinary steps everything after ``backward()`` (clipping, norms, logging) sees the gradient of the
    active weights only; the dense gradient is visible at update steps, whose gradient step the update
    replaces. Methods with momentum or shadow weights (SNFS, DNW, DNS) need the dense gradient at every step,
    as the optimizer would get it: with them clipping, too, sees it always. What Deep R adds to the gradient
    is added after clipping.

    Gradient accumulation, closures, loss scaling, torch.compile and DistributedDataParallel work as they
    are. Gradients that do not come from ``backward()``, but for example from `torch.func.grad`, are only masked in the
    step: call ``zero_gradients_outside()`` of the handle before you clip them.

    The topology travels in ``optimizer.state_dict()``: to save and load the model and the optimizer, in any order, is
    enough, before or after ``sparsify``. A state that was loaded before is found in the optimizer. Whatever tools zero
    or load on the way, no weight of a checkpoint gets lost. A state that was saved without a topology is an error at
    the first step, and a warning later.

    What you write into weights or the optimizer's state outside the masks, such as a checkpoint of a dense model, is
    zeroed at the next step. A warning tells of such weights: at that step, or before if you look at the masks, the
    table or the state. What you write through ``.data``, which PyTorch does not count, is zeroed at the next update;
    only a look tells of it. A warning also tells of weights that learn without steps of this optimizer: by another
    optimizer, by hand, or because the model has got new parameters.

    Sharded models work, too: call `fully_shard` or `parallelize_module`, then make the optimizer, then call this
    function; docs/devices.md says more. A step of a model that was sharded after it is an error.

    Three more things to know: compression between replicas that mixes weights (PowerSGD)
    hands clipping the whole gradient, and only the optimizer sees the sparse one; where a loss scaler skips an
    overflowing step, optimizers that it does not call (all but the fused ones) have made no step, so the
    schedule waits; and replicas must start with the same weights where a method looks at these (initial
    magnitudes, signs, initial or shadow weights), or the first step is an error: wrap the model in
    DistributedDataParallel first, or seed every process alike.

    Args:
        model: any module; weights outside the initial topology become zero. Give the bare model, before
            or after wrapping it: the wrappers of replicas and compilers change the names of its layers.
        optimizer: any first-order optimizer that holds the model's layers; `docs/optimizers.md` has a list of those
            that were tried. One whose state cannot be told is refused. It may be a wrapper of others, such as
            Accelerate's, or SAM. A closure may be evaluated several times; at an update, optimizers that are not
            PyTorch's then need memory for a copy of all weights and state.
        recipe: how to train sparsely, such as ``rigl_core.RigL(0.9, schedule=...)``.
        layers: which parameters to sparsify; by default those of `choose_layers`.
        include: name patterns of parameters to sparsify besides the default ones, for example embeddings; only
            without ``layers``.
        exclude: name patterns of parameters to leave alone, outside every count; only without ``layers``.
        axes: in and out axes by name pattern; only without ``layers``.
        stacked: the axis, or axes, along which layers are stacked, by name pattern, such as ``{"layers/*": 0}``. Each
            slice then chooses, and gets its share of the budget, as a layer of its own; only without ``layers``.
        fused: the number of equal parts of the out axis that choose in the same way, each on its own, by name pattern,
            such as ``{"*in_proj_weight": 3}``; for another axis, give (axis, parts). Only without ``layers``.
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets).
        initial: the masks to begin with, in place of random ones: the path of a file of `rigl_core.storage`, a
            `rigl_core.storage.Topology`, or bool arrays by layer name. Masks of another framework are turned by the
            layers' axes. The recipe then has as many connections as they have; its sparsity may be left out.
        changed: fields of the recipe, such as "schedule", that were changed on purpose since the state was saved that
            the optimizer loads.
        storage: ``"masks"``, or ``"active"``: float32 `torch.nn.Linear` and `torch.nn.Conv2d` modules on a CPU become
            `SparseLinear` and `SparseConv2d`, which hold their active weights alone, and so do the optimizer's state
            and the gradient. Time and memory are then in proportion to the density. Layers for which this is not
            possible or does not pay keep their masks, and a warning names them; to decide layer by layer, give a dict
            of both words by name pattern. The parameters stay the same objects; wrap the model
            (DistributedDataParallel) after that. A model on the meta device is made on the CPU by its own
            initialisation, and the dense weights of these layers never exist.

    Returns:
        A handle: masks, step, table, ``remove()``, ``state_dict()``, ``load_state_dict()`` and ``zero_outside()``,
        which masks an average of the weights. It need not be kept. To copy a training, copy all at once:
        ``copy.deepcopy((model, optimizer, sparse))``; copies of the model and the optimizer alone are plain.

    Raises:
        TypeError, ValueError: naming the parameter; nothing has been changed then.
    """
    check_changed(changed)
    found = _optimizers_of(optimizer)
    chosen = layers_of(model, layers, include, exclude, axes, stacked, fused, unmade=storage != "masks")
    recipe, scores = start_from(recipe, chosen, initial, scores)
    own = _plan(model, recipe, chosen, layers)
    params = parameters_of(model, own.layers)
    check_shards(own, params)
    optimizers = _that_hold(found, own.layers, params)
    errors.check_scores(own, scores)
    with _without_topology(optimizers) as parts:
        saved = _saved_in(parts, own, params, changed)
        hold_active(own, model, params, optimizers[0], storage, scores, None if saved is None else saved["masks"])
        return SparseTraining(own, model, params, optimizers, scores, saved=saved, changed=changed)


def _optimizers_of(optimizer: object) -> list[Optimizer]:
    """The optimizer and those that it wraps, from the outside to the inside, as far as they run hooks."""
    if not isinstance(optimizer, Optimizer):
        raise errors.wrong_type("optimizer", optimizer, "torch.optim.Optimizer")
    found = [inner for _, inner in optimizers_in(optimizer)]
    if any(isinstance(inner, LBFGS) for inner in found):
        raise ValueError(
            "optimizer is L-BFGS, whose history mixes all weights, so it cannot follow a topology that moves: "
            "use a first-order optimizer."
        )
    if getattr(optimizer, "_overlap_with_ddp", False):
        raise ValueError(
            "optimizer is a ZeroRedundancyOptimizer with overlap_with_ddp=True, which steps inside of backward(), "
            "where no update can take the place of a step: use overlap_with_ddp=False."
        )
    found = [
        inner for inner in found if {"_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"} <= set(vars(inner))
    ]
    if not found:
        raise ValueError(
            f"optimizer is a {type(optimizer).__name__}, which runs no hooks: give the optimizer inside of it, or call "
            "Optimizer.__init__ in its own."
        )
    if any(map(is_sparsified, found)):
        raise errors.already_sparsified("optimizer")
    return found


def _that_hold(optimizers: list[Optimizer], layers: Sequence[Layer], params: Sequence[nn.Parameter]) -> list[Optimizer]:
    """The optimizers that hold all layers; the outermost must."""
    held = set(params_of(optimizers[0]))
    for layer, param in zip(layers, params, strict=True):
        if param not in held:
            raise errors.not_held(layer)
        if is_sparsified(param):
            raise ValueError(
                f"layer {layer.name!r} is already sparsified with another optimizer: call remove() on its handle."
            )
    return [optimizer for optimizer in optimizers if set(params) <= set(params_of(optimizer))]


def _saved_in(
    parts: Parts, plan: Plan, params: Sequence[nn.Parameter], changed: Collection[str]
) -> dict[str, Any] | None:
    """The state that optimizers had loaded, if they had one."""
    if not parts:
        return None
    saved = unpack(parts, plan, params)[0]
    check_state(plan, saved, changed)
    return saved


@contextmanager
def _without_topology(optimizers: Iterable[Optimizer]) -> Iterator[Parts]:
    """Take a topology out of the state that optimizers have loaded. If an error follows, put it back."""
    before = [(optimizer, dict(optimizer.state)) for optimizer in optimizers]
    found: Parts = {}
    for optimizer, state in before:
        parts, rest = take_out(state, {param: param for param in params_of(optimizer)})
        if parts:
            found |= parts
            optimizer.state.clear()
            optimizer.state.update(rest)
    try:
        yield found
    except Exception:
        for optimizer, state in before:
            optimizer.state.update(state)
        raise
