"""A sparse training in PyTorch: hooks on the optimizer and on the gradients."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.layer import SparseLayer
from rigl_backends.torch.namespace import all_finite
from rigl_backends.torch.state import gradients_of, keeps_zeros
from rigl_core import adapter
from rigl_core.adapter import Plan


class _Step(NamedTuple):
    """A step in progress: the notes that the hook before it leaves to the hook after it.

    Attributes:
        update: the number of the update that the step makes, or None.
        gradients: copies of the dense gradients, flat, by position, for an update after the gradient step.
        hidden: parameters, and the gradients that an update in place of the gradient step has taken from them.
    """

    update: int | None
    gradients: Mapping[int, Tensor] = {}
    hidden: Sequence[tuple[Tensor, Tensor]] = ()


class SparseTraining(adapter.SparseTraining[SparseLayer]):
    """The handle of a sparse training, made by `sparsify`.

    Load the model's, the optimizer's and this handle's state in any order, but all of them after `sparsify`, which
    zeroes weights outside the initial topology.

    Attributes:
        plan: the exact counts.
    """

    def __init__(
        self, plan: Plan, params: Sequence[nn.Parameter], optimizer: Optimizer, scores: Mapping[str, Any] | None = None
    ) -> None:
        layers = {i: SparseLayer(plan.layers[i], plan.recipe, params[i], optimizer) for i in plan.sparse_layers}
        super().__init__(plan, layers)
        self._params, self._optimizer = params, optimizer
        self._of_param = {layer.param: layer for layer in layers.values()}
        self._step: _Step | None = None
        # Calls of step() inside each other: a subclass's that calls its parent's runs the hooks of both.
        self._depth = 0
        self.start(scores)
        # A compiled optimizer.step() runs the hooks as they are: they read the clock, which moves at every step.
        self._hooks = [
            optimizer.register_step_pre_hook(torch.compiler.disable(self._before_step)),  # type: ignore[no-untyped-call]
            optimizer.register_step_post_hook(torch.compiler.disable(self._after_step)),  # type: ignore[no-untyped-call]
            *(param.register_post_accumulate_grad_hook(self._on_gradient) for param in self._of_param),  # type: ignore[no-untyped-call]
        ]

    def remove(self) -> None:
        """Take the hooks off; the weights stay sparse until the optimizer changes them."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    # The hooks.

    def _on_gradient(self, param: nn.Parameter) -> None:
        """After backward() has accumulated a gradient, keep that of active weights, unless the step reads all of it."""
        self._depth = 0  # a step that failed has not ended
        layer = self._of_param[param]
        layer.check_shape()
        if not self.reads_gradients:
            layer.zero_gradient_outside()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if self._depth == 0 and closure is None:
            self._begin()
        self._depth += 1
        if self._depth > 1 or closure is None:
            return None

        def closure_then_begin() -> Any:
            depth, self._depth = self._depth, 0  # a closure that fails ends the step
            loss = closure()
            self._begin()
            self._depth = depth
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure_then_begin}
        return (args[0], closure_then_begin, *args[2:]), kwargs

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._depth = max(self._depth - 1, 0)
        if self._depth == 0 and self._step is not None:
            self._end(self._step)

    # The step.

    def _begin(self) -> None:
        """Make an update in place of the gradient step, or get weights and gradients ready for the optimizer."""
        for layer in self._layers.values():
            layer.check_shape()
        own = {i: layer.gradient for i, layer in self._layers.items() if self.reads_gradients}
        gradients = {i: gradient for i, gradient in own.items() if gradient is not None}
        update = self.due(gradients, finite=self._all_finite)
        if update is not None and self._rule.on_update == "replace":
            self.move(update, gradients)
            hidden = gradients_of(self._optimizer)
            for param, _ in hidden:
                param.grad = None  # so that no parameter moves, and no state advances
            self._step = _Step(update, hidden=hidden)
        else:
            self._step = _Step(update, {i: x.clone() for i, x in gradients.items() if update is not None})
            self._before_gradient_step()

    def _before_gradient_step(self) -> None:
        """Show the optimizer the active weights and their gradients, or all of them where the others learn too."""
        for layer in self._layers.values():
            if self._rule.shadow:
                layer.show_shadow()
            else:
                layer.zero_what_was_written()
                layer.add_noise(self.step)
                layer.zero_gradient_outside()

    def _end(self, step: _Step) -> None:
        """Zero the weights outside the masks, unless the optimizer leaves zeros alone; make an update that follows."""
        self._step = None
        zeros_stay = not self._rule.shadow and keeps_zeros(self._optimizer, {param.dtype for param in self._of_param})
        for layer in self._layers.values():
            layer.hide_shadow()
            if not zeros_stay:
                layer.zero_weight_outside(layer.bits_for(layer.param))
        if step.update is not None and self._rule.on_update == "after":
            self.move(step.update, step.gradients)
        for layer in self._layers.values():
            layer.remember_writes()
        for param, gradient in step.hidden:
            param.grad = gradient
        self.advance(step.update)

    def _all_finite(self) -> bool:
        """Whether all gradients are finite, also those of dense parameters, since clipping mixes them."""
        overflow = getattr(self._optimizer, "found_inf", None)  # a gradient scaler's finding, for fused optimizers
        gradients = (gradient for _, gradient in gradients_of(self._optimizer))
        return all_finite(gradients) and not (overflow is not None and overflow.item())

    # Where the arrays are.

    def _mask(self, position: int) -> Tensor:
        if position in self._layers:
            return self._layers[position].mask.reshape(self.plan.layers[position].shape)
        return torch.ones_like(self._params[position], dtype=torch.bool)

    def _array(self, saved: Any) -> Tensor:
        return saved.detach().clone() if isinstance(saved, Tensor) else torch.tensor(np.asarray(saved))

    def _copy(self, array: Tensor) -> Tensor:
        return array.clone()

    def _may_use_threads(self) -> bool:
        return all(param.device.type == "cpu" for param in self._of_param)  # a GPU's current stream is a thread's own


def is_sparsified(owner: Optimizer | Tensor) -> bool:
    """Whether a `SparseTraining` has its hooks on this optimizer or parameter."""
    kind = "_optimizer_step_pre_hooks" if isinstance(owner, Optimizer) else "_post_accumulate_grad_hooks"
    hooks = getattr(owner, kind, None) or {}
    methods = [inspect.unwrap(hook, stop=inspect.ismethod) for hook in hooks.values()]
    return any(isinstance(getattr(method, "__self__", None), SparseTraining) for method in methods)
