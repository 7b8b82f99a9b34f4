"""A sparse training in PyTorch: hooks on the optimizer and on the gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.active import ActiveLayer, kept, layers_in
from rigl_backends.torch.agreement import gradients_are_finite
from rigl_backends.torch.kept import Kept
from rigl_backends.torch.layer import SparseLayer
from rigl_backends.torch.notes import Step
from rigl_backends.torch.replicas import Replicas
from rigl_backends.torch.rollback import Rollback, evaluates_once
from rigl_backends.torch.state import Counters, gradients_of, keeps_zeros
from rigl_backends.torch.travel import Travel, is_empty_step
from rigl_backends.torch.twin import is_sharded
from rigl_backends.torch.watch import Watch
from rigl_core import adapter
from rigl_core.adapter import Plan


class Steps(adapter.SparseTraining["SparseLayer | ActiveLayer"]):
    """The steps of a sparse training. What users ask of it is `rigl_backends.torch.handle.SparseTraining`.

    Args:
        plan: the plan.
        model: the model.
        params: the parameters of the plan's layers.
        optimizers: the optimizers whose steps are the training's. The first may wrap the others.
        scores: arrays by layer name that choose the initial topology.
        saved: a state from which the training goes on, in place of an initial topology.
        changed: fields of the recipe that were changed since a state was saved.
    """

    def __init__(
        self,
        plan: Plan,
        model: nn.Module,
        params: Sequence[nn.Parameter],
        optimizers: Sequence[Optimizer],
        scores: Mapping[str, Any] | None = None,
        *,
        saved: Mapping[str, Any] | None = None,
        changed: Collection[str] = (),
    ) -> None:
        outer = optimizers[0]
        self._masked, self._active = layers_in(plan, model, params, outer)
        layers: dict[int, SparseLayer | ActiveLayer] = {**self._masked, **self._active}
        super().__init__(plan, dict(sorted(layers.items())))
        self.params, self.changed = params, changed
        self._model, self._optimizers, self._optimizer = model, optimizers, outer
        self._of_param = {layer.param: layer for layer in layers.values()}
        self._step: Step | None = None
        self._rollback: Rollback | None = None
        self._is_empty_step = False
        # Calls of step() inside each other: a subclass's that calls its parent's runs the hooks of both.
        self._depth, self.kept = 0, Kept()
        self._replicas = Replicas(layers.values())
        self._watch = Watch(model, layers.values(), optimizers, lambda: self.step)
        self._begin_with(scores, saved)
        self._travel = Travel(self, list(self._layers.values()), optimizers)
        # A compiled optimizer.step() runs the hooks as they are: they read the clock, which moves at every step.
        self._hooks = [
            *(hook for optimizer in optimizers for hook in self._hooks_of(optimizer)),
            *(param.register_post_accumulate_grad_hook(self._on_gradient) for param in self._of_param),  # type: ignore[no-untyped-call]
        ]

    def _hooks_of(self, optimizer: Optimizer) -> list[Any]:
        return [
            optimizer.register_step_pre_hook(torch.compiler.disable(self._before_step)),  # type: ignore[no-untyped-call]
            optimizer.register_step_post_hook(torch.compiler.disable(self._after_step)),  # type: ignore[no-untyped-call]
        ]

    def _begin_with(self, scores: Mapping[str, Any] | None, saved: Mapping[str, Any] | None) -> None:
        for layer in self._active.values():
            layer.listen(lambda: self.reads_gradients)
        if saved is not None:
            self.load_state_dict(saved, changed=self.changed)
        else:
            self.kept.keep(self._masked.values(), loaded=False)
            self.start(scores)
            self._watch.settle()

    # The hooks.

    def _on_gradient(self, param: nn.Parameter) -> None:
        """After backward() has accumulated a gradient, keep that of active weights, unless the step reads all of it."""
        self._depth = 0  # a step that failed has not ended
        layer = self._of_param[param]
        layer.check_shape()
        self._watch.on_backward(param)
        if isinstance(layer, ActiveLayer):
            layer.on_gradient()
        elif not self.reads_gradients:
            layer.zero_gradient_outside()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        changed = self._start_step(closure, args, kwargs) if self._depth == 0 else None
        self._depth += 1
        return changed

    def _start_step(self, closure: Callable[[], Any] | None, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Begin the step now, or once its closure has been evaluated; then return the arguments for that."""
        self._step, self._rollback = None, None
        self._is_empty_step = is_empty_step(self._optimizer, args, kwargs)
        if self._is_empty_step:
            return None
        self._check()
        if self._clock.due and self._rule.on_update == "replace" and self._needs_rollback(closure):
            self._rollback = Rollback(self._optimizer)
        if closure is None:
            self._begin()
            return None
        evaluate = self._then_begin(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": evaluate}
        return (args[0], evaluate, *args[2:]), kwargs

    def _needs_rollback(self, closure: Callable[[], Any] | None) -> bool:
        """Whether hiding the gradients from the optimizer does not make it stand still, or comes too late."""
        rests = all(layer.state.rests for layer in self._layers.values())
        return not rests or (closure is not None and not evaluates_once(self._optimizer))

    def _then_begin(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure after which the step begins, anew with each evaluation: the last one counts."""
        memory = {i: layer.memory for i, layer in self._layers.items()}

        def evaluate() -> Any:
            depth, self._depth = self._depth, 0  # a closure that fails ends the step
            self._watch.settle()  # whatever the optimizer has written
            loss = closure()
            for i, layer in self._layers.items():
                layer.check_shape()
                layer.memory = memory[i]
            self._begin()
            self._depth = depth
            return loss

        return evaluate

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._depth = max(self._depth - 1, 0)
        if self._depth == 0 and self._step is not None:
            self._end(self._step)
        elif self._depth == 0 and self._is_empty_step:
            self._watch.settle()
            self._travel.show_places(self._optimizer)

    # The step.

    def _check(self) -> None:
        """Before a step: tell, or refuse, what other code has done to the training."""
        for layer in self._layers.values():
            layer.check_shape()
            layer.state.check()
        self._replicas.check(self.step, due=self._clock.due)
        self._travel.before_step(self.step, came=self.kept.loaded)
        lost = self.kept.lost()
        self.kept.forget()
        self._watch.on_step(lost)

    def _begin(self) -> None:
        """Make an update in place of the gradient step, or get weights and gradients ready for the optimizer."""
        reads = self.reads_gradients or self._clock.due
        own = {i: layer.gradient for i, layer in self._layers.items()} if reads else {}
        gradients = {i: gradient for i, gradient in own.items() if gradient is not None}
        update = self.due(gradients, finite=lambda: gradients_are_finite(self._optimizer))
        if update is not None and self._rollback is not None:
            self._step = Step(update, {i: kept(x) for i, x in gradients.items()}, rollback=self._rollback)
        elif update is not None and self._rule.on_update == "replace":
            self.move(update, gradients)
            hidden = gradients_of(self._optimizer)
            for param, _ in hidden:
                param.grad = None  # so that no parameter moves, and no state advances
            self._step = Step(update, hidden=hidden, counters=Counters(self._optimizer))
        else:
            self._step = Step(update, {} if update is None else self._kept_for_later(gradients))
            self._before_gradient_step()

    def _kept_for_later(self, gradients: Mapping[int, Any]) -> Mapping[int, Any]:
        """Gradients for an update after the optimizer's step, as copies where their numbers decide."""
        return {i: kept(gradient) for i, gradient in gradients.items()} if self.reads_gradients else gradients

    def _before_gradient_step(self) -> None:
        """Show the optimizer the active weights and their gradients, or all of them where the others learn too."""
        for layer in self._masked.values():
            if self._rule.shadow:
                layer.show_shadow()
            else:
                layer.zero_what_was_written()
                layer.add_noise(self.step)
                layer.zero_gradient_outside()
        for active in self._active.values():
            active.add_noise(self.step)

    def _end(self, step: Step) -> None:
        """Zero the weights outside the masks, unless the optimizer leaves zeros alone; make an update that follows."""
        self._step = None
        if step.update is not None and step.rollback is not None:
            step.rollback.restore()
            for active in self._active.values():
                active.forget()
            self.move(step.update, step.gradients)
        zeros_stay = not self._rule.shadow and keeps_zeros(self._optimizer, {param.dtype for param in self._of_param})
        for layer in self._masked.values():
            layer.hide_shadow()
            if not zeros_stay:
                layer.zero_what_is_outside()
        if step.update is not None and self._rule.on_update == "after":
            self.move(step.update, step.gradients)
        for layer in self._masked.values():
            layer.remember_writes()
        moved: dict[Tensor, ActiveLayer] = {layer.param: layer for layer in self._active.values()}
        for param, gradient in step.hidden:
            own = moved.get(param)
            param.grad = gradient if own is None else own.gradient_after(gradient)
        for active in self._active.values():
            active.after_step()
        if step.counters is not None:
            step.counters.restore()
        self.advance(step.update)
        self._watch.settle()

    # Where the arrays are.

    def _mask(self, position: int) -> Tensor:
        if position in self._layers:
            return self._layers[position].shaped(torch.as_tensor(self._layers[position].mask))
        return torch.ones_like(self.params[position], dtype=torch.bool)

    def _array(self, saved: Any) -> Tensor:
        return saved.detach().clone() if isinstance(saved, Tensor) else torch.tensor(np.asarray(saved))

    def _copy(self, array: Tensor) -> Tensor:
        return array.clone()

    def _may_use_threads(self) -> bool:
        # A GPU's current stream is a thread's own; layers of active weights use several threads themselves; and the
        # processes that hold shards must exchange counts in one order.
        return not self._active and all(
            param.device.type == "cpu" and not is_sharded(param) for param in self._of_param
        )
