"""A sparse training in PyTorch: hooks on the optimizer and on the gradients."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.sparse_layer import SparseLayer
from rigl_core.checkpoint import check_state, make_state
from rigl_core.clock import Clock
from rigl_core.inspect import SparsityTable
from rigl_core.plan import Plan
from rigl_core.selection import one_at_a_time, two_at_a_time


class SparseTraining:
    """The handle of a sparse training, made by `sparsify`.

    Attributes:
        plan: the exact counts.
    """

    def __init__(self, plan: Plan, params: Sequence[nn.Parameter], optimizer: Optimizer) -> None:
        self.plan = plan
        self._optimizer = optimizer
        self._clock = Clock(plan.recipe.schedule)
        self._params = list(params)
        self._layers = {
            i: SparseLayer(plan.layers[i], plan.active[i], params[i], optimizer) for i in plan.sparse_layers
        }
        self._of_param = {layer.param: layer for layer in self._layers.values()}
        self._update: int | None = None
        # A subclass's step() that calls its parent's runs the hooks of both: only the outer call is a step.
        self._running = 0
        self._in_closure = False
        self._dense_gradients: dict[int, Tensor] = {}
        self._hidden: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            masks = {i: layer.initial_mask(plan.recipe) for i, layer in self._layers.items()}
            for i, layer in self._layers.items():
                layer.start(masks[i])
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
        return make_state(self.plan, self._clock, self.masks)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Load the model's, the optimizer's and this state in any order, but all of them after `sparsify`,
        which zeroes weights outside the initial topology.

        Raises:
            ValueError: if the state is of another recipe or other layers; nothing has been changed then.
        """
        state = _on_host(state)
        check_state(self.plan, state)
        self._clock.step, self._clock.deferred = state["step"], state["deferred"]
        for layer in self._layers.values():
            layer.set_mask(torch.as_tensor(state["masks"][layer.layer.name]))

    @torch.no_grad()
    def _on_gradient(self, param: nn.Parameter) -> None:
        """After backward() has accumulated a gradient: keep the sparse one, unless the update needs it all."""
        if not self._in_closure:
            self._running = 0  # a step that failed has not ended
        layer = self._of_param[param]
        layer.check_shape()
        if self._clock.due is None or not self.plan.recipe.reads_gradient:
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
        if self._update is not None and recipe.reads_gradient:
            gradients = {i: layer.gradient for i, layer in self._layers.items()}
            self._dense_gradients = {i: gradient for i, gradient in gradients.items() if gradient is not None}
            if not self._gradients_are_finite():
                self._clock.defer()
                self._update = None
        if self._update is not None and recipe.on_update == "replace":
            self._move()
            self._hide_gradients()
            return
        if self._update is not None:
            self._dense_gradients = {i: gradient.clone() for i, gradient in self._dense_gradients.items()}
        for layer in self._layers.values():
            layer.mask_gradient()

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._running -= 1
        if self._running > 0:
            return
        for layer in self._layers.values():
            layer.mask_weights()
        if self._update is not None and self.plan.recipe.on_update == "after":
            self._move()
        self._show_gradients()
        self._dense_gradients = {}
        self._clock.advance(updated=self._update is not None)

    def _move(self) -> None:
        assert self._update is not None
        update = self._update

        def move(i: int) -> None:
            drop_count = int(self.plan.drop_counts[update, i])
            self._layers[i].move(self.plan.recipe, update, drop_count, self._dense_gradients.get(i))

        on_host = all(param.device.type == "cpu" for param in self._of_param)
        for_each = two_at_a_time if on_host else one_at_a_time  # threads would lose a GPU's current stream
        for_each(move, self._layers)

    def _gradients_are_finite(self) -> bool:
        """Of all parameters the optimizer holds: clipping spreads what is wrong with one over the others."""
        overflow = getattr(self._optimizer, "found_inf", None)  # a gradient scaler's finding, for fused optimizers
        flags = [_is_finite(_values(gradient)) for _, gradient in self._gradients()]
        return all(bool(flag) for flag in flags) and not (overflow is not None and overflow.item())

    def _hide_gradients(self) -> None:
        """Without gradients the optimizer's step is empty: no parameter moves, no state advances."""
        self._hidden = self._gradients()
        for param, _ in self._hidden:
            param.grad = None

    def _gradients(self) -> list[tuple[Tensor, Tensor]]:
        held = (param for group in self._optimizer.param_groups for param in group["params"])
        return [(param, param.grad) for param in held if param.grad is not None]

    def _show_gradients(self) -> None:
        for param, gradient in self._hidden:
            param.grad = gradient
        self._hidden = []


def is_sparsified(owner: Optimizer | Tensor) -> bool:
    """Whether a `SparseTraining` has its hooks on this optimizer or parameter."""
    kind = "_optimizer_step_pre_hooks" if isinstance(owner, Optimizer) else "_post_accumulate_grad_hooks"
    hooks = getattr(owner, kind, None) or {}
    methods = [inspect.unwrap(hook, stop=inspect.ismethod) for hook in hooks.values()]
    return any(isinstance(getattr(method, "__self__", None), SparseTraining) for method in methods)


def _values(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, which a dense embedding may hold as a sparse tensor."""
    return gradient.coalesce().values() if gradient.layout == torch.sparse_coo else gradient


def _is_finite(values: Tensor) -> Tensor:
    """Whether all numbers are; their smallest and largest tell, a NaN going before both."""
    if not values.numel():
        return torch.ones((), dtype=torch.bool)
    real = torch.view_as_real(values) if values.is_complex() else values
    return torch.isfinite(torch.stack(torch.aminmax(real))).all()


def _on_host(state: Any) -> Any:
    """A saved state with its masks in the host's memory, wherever they were loaded to."""
    masks = state.get("masks") if isinstance(state, Mapping) else None
    if not isinstance(masks, Mapping):
        return state
    return {**state, "masks": {name: mask.cpu() if isinstance(mask, Tensor) else mask for name, mask in masks.items()}}
