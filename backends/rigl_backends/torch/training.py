"""A sparse training in PyTorch: hooks on the optimizer and on the gradients."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch import gradients
from rigl_backends.torch.devices import masks_on_host, on_one_device
from rigl_backends.torch.elementwise import keeps_zeros
from rigl_backends.torch.namespace import torch_namespace as xp
from rigl_backends.torch.sparse_layer import SparseLayer
from rigl_core.arrays.random import INITIAL
from rigl_core.model.table import SparsityTable
from rigl_core.plan import Plan
from rigl_core.step.checkpoint import check_state, make_state
from rigl_core.step.clock import Clock
from rigl_core.step.selection import two_at_a_time
from rigl_core.step.update import Counts, initial_masks, move_pool


class SparseTraining:
    """The handle of a sparse training, made by `sparsify`.

    Attributes:
        plan: the exact counts.
    """

    def __init__(
        self, plan: Plan, params: Sequence[nn.Parameter], optimizer: Optimizer, scores: Mapping[str, Any] | None = None
    ) -> None:
        self.plan = plan
        self._optimizer = optimizer
        self._clock = Clock(plan.recipe.schedule)
        self._params = list(params)
        self._layers = {i: SparseLayer(plan.layers[i], plan.recipe, params[i], optimizer) for i in plan.sparse_layers}
        self._of_param = {layer.param: layer for layer in self._layers.values()}
        self._update: int | None = None
        # A subclass's step() that calls its parent's runs the hooks of both: only the outer call is a step.
        self._running = 0
        self._in_closure = False
        self._gradients: dict[int, Tensor] = {}
        self._hidden: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            self._start(scores or {})
        # A compiled optimizer.step() runs the hooks as they are: they read the clock, which moves at every step.
        self._hooks = [
            optimizer.register_step_pre_hook(torch.compiler.disable(self._before_step)),  # type: ignore[no-untyped-call]
            optimizer.register_step_post_hook(torch.compiler.disable(self._after_step)),  # type: ignore[no-untyped-call]
        ]
        for param in self._of_param:
            self._hooks.append(param.register_post_accumulate_grad_hook(self._on_gradient))  # type: ignore[no-untyped-call]

    @property
    def masks(self) -> dict[str, Tensor]:
        """Copies of the masks, as bool tensors by layer name, in the layers' shapes."""
        return {
            layer.name: self._layers[i].mask if i in self._layers else torch.ones_like(param, dtype=torch.bool)
            for i, (layer, param) in enumerate(zip(self.plan.layers, self._params, strict=True))
        }

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""
        return self._clock.step

    @property
    def table(self) -> SparsityTable:
        """Density, active and zero weights of each layer."""
        active = tuple(int(torch.count_nonzero(mask)) for mask in self.masks.values())
        return SparsityTable(self.plan.layers, active)

    def remove(self) -> None:
        """Take the hooks off; the weights stay sparse until the optimizer changes them."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs besides the model's and the optimizer's state_dict."""
        memory = {
            kind: {layer.name: layer.memory[kind].clone() for layer in self._layers.values()}
            for kind in self.plan.recipe.memories
        }
        return make_state(self.plan, self._clock, self.masks, memory)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Load the model's, the optimizer's and this state in any order, but all of them after `sparsify`,
        which zeroes weights outside the initial topology.

        Raises:
            ValueError: if the state is of another recipe or other layers; nothing has been changed then.
        """
        state = masks_on_host(state)
        check_state(self.plan, state)
        self._clock.step, self._clock.deferred = state["step"], state["deferred"]
        for layer in self._layers.values():
            layer.set_memory({kind: arrays[layer.name] for kind, arrays in state["memory"].items()})
            layer.set_mask(torch.as_tensor(state["masks"][layer.name]))

    def _start(self, scores: Mapping[str, Any]) -> None:
        masks = [self._initial_masks(pool, scores) for pool in self.plan.pools]
        for pool, own in zip(self.plan.pools, masks, strict=True):
            for i, mask in zip(pool, own, strict=True):
                self._layers[i].start(mask.reshape(self.plan.layers[i].shape))

    def _initial_masks(self, pool: Sequence[int], scores: Mapping[str, Any]) -> list[Tensor]:
        recipe, layers = self.plan.recipe, [self._layers[i] for i in pool]
        draws = recipe.initial.reads_random
        connections = [layer.connections(INITIAL, indices=draws, scores=scores.get(layer.name)) for layer in layers]
        active = [self.plan.initial_active[i] for i in pool]
        return initial_masks(recipe, on_one_device(connections), active, xp=xp)

    @torch.no_grad()
    def _on_gradient(self, param: nn.Parameter) -> None:
        """After backward() has accumulated a gradient: keep the sparse one, unless the step needs it all."""
        if not self._in_closure:
            self._running = 0  # a step that failed has not ended
        layer = self._of_param[param]
        layer.check_shape()
        recipe = self.plan.recipe
        if not (recipe.reads_every_gradient or (self._clock.due is not None and recipe.reads_gradient)):
            layer.mask_gradient()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        self._running += 1
        if self._running > 1:
            return None
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if closure is None:
            self._on_step()
            return None

        def closure_then_step() -> Any:
            self._in_closure = True
            try:
                loss = closure()
            finally:
                self._in_closure = False
            self._on_step()
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure_then_step}
        return (args[0], closure_then_step, *args[2:]), kwargs

    @torch.no_grad()
    def _on_step(self) -> None:
        """Between the gradients and the optimizer's own step."""
        for layer in self._layers.values():
            layer.check_shape()
        recipe, self._update = self.plan.recipe, self._clock.due
        if self._update is not None and recipe.reads_gradient and not gradients.are_finite(self._optimizer):
            self._clock.defer()
            self._update = None
        for layer in self._layers.values():
            layer.observe()
        if self._update is not None and recipe.reads_gradient:
            own = {i: layer.gradient for i, layer in self._layers.items()}
            self._gradients = {i: gradient for i, gradient in own.items() if gradient is not None}
        if self._update is not None and recipe.on_update == "replace":
            self._move()
            self._hidden = gradients.hide(self._optimizer)
            return
        self._gradients = {i: gradient.clone() for i, gradient in self._gradients.items()}
        self._prepare_gradient_step()

    def _prepare_gradient_step(self) -> None:
        """What the optimizer sees: the active weights and their gradients, or all, if the others learn too."""
        for layer in self._layers.values():
            if self._learn_unseen:
                layer.show_shadow()
                continue
            layer.find_zeros()
            layer.mask_gradient()
            if self.plan.recipe.changes_gradient:
                layer.add_noise(self._clock.step)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._running -= 1
        if self._running > 0:
            return
        self._end_gradient_step()
        if self._update is not None and self.plan.recipe.on_update == "after":
            self._move()
        for layer in self._layers.values():
            layer.leave_zeros()
        gradients.show(self._hidden)
        self._hidden, self._gradients = [], {}
        self._clock.advance(updated=self._update is not None)

    def _end_gradient_step(self) -> None:
        """Zeros outside the masks, whatever the optimizer did there, even without gradients."""
        zeros_stay = keeps_zeros(self._optimizer, {param.dtype for param in self._of_param})
        for layer in self._layers.values():
            if not self._hidden:
                layer.hide_shadow()
            if self._learn_unseen or not zeros_stay:
                layer.mask_weights()

    @property
    def _learn_unseen(self) -> bool:
        return "shadow" in self.plan.recipe.memories

    def _move(self) -> None:
        pools = range(len(self.plan.pools))
        if all(param.device.type == "cpu" for param in self._of_param):
            two_at_a_time(self._move_pool, pools, self.plan.pool_size)
        else:  # threads would lose a GPU's current stream
            for number in pools:
                self._move_pool(number)

    @torch.no_grad()  # which a thread does not inherit
    def _move_pool(self, number: int) -> None:
        """One pool's topology update; a layer on its own that was not used, and so has no gradient, keeps its own."""
        assert self._update is not None
        recipe, row, pool = self.plan.recipe, self.plan.row(self._update), self.plan.pools[number]
        if recipe.reads_gradient and len(pool) == 1 and pool[0] not in self._gradients:
            return
        update, draws, layers = self._update, recipe.reads_random, [self._layers[i] for i in pool]
        own = [self._layers[i].connections(update, self._gradients.get(i), indices=draws) for i in pool]
        connections = on_one_device(own)
        device = connections[0].weight.device
        keep, grow = int(self.plan.keep_counts[row, number]), int(self.plan.grow_counts[row, number])
        counts = Counts(keep, grow, torch.tensor(self.plan.digits[row], device=device))
        masks = [layer.mask.reshape(-1).to(device) for layer in layers]
        moved = move_pool(recipe, connections, masks, counts, xp=xp)
        for layer, before, new in zip(layers, own, moved, strict=True):
            layer.move_to(before, new)


def is_sparsified(owner: Optimizer | Tensor) -> bool:
    """Whether a `SparseTraining` has its hooks on this optimizer or parameter."""
    kind = "_optimizer_step_pre_hooks" if isinstance(owner, Optimizer) else "_post_accumulate_grad_hooks"
    hooks = getattr(owner, kind, None) or {}
    methods = [inspect.unwrap(hook, stop=inspect.ismethod) for hook in hooks.values()]
    return any(isinstance(getattr(method, "__self__", None), SparseTraining) for method in methods)
