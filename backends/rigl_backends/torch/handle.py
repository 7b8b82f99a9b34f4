"""The handle of a sparse training: what users ask of it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.bits import zero_outside
from rigl_backends.torch.link import Link
from rigl_backends.torch.storage import with_masks
from rigl_backends.torch.training import Steps
from rigl_backends.torch.twin import is_sharded
from rigl_core.adapter import check_state, errors


class SparseTraining(Steps):
    """The handle of a sparse training, made by `sparsify`.

    Save and load the model's and the optimizer's state, in any order. This handle's own state is that part of the
    optimizer's which holds the topology; who saves it apart can load it apart.

    In a sharded model, ``masks`` and the state hold DTensors, which lie as the parameters do. ``table`` counts in all
    shards: all processes must ask for it at the same time. Warnings are about a process's own shards.

    Attributes:
        plan: the exact counts.
    """

    def tell_outside(self) -> None:
        """Warn of weights outside the masks, and of a training that goes on without this one."""
        # Tools save an optimizer that they are about to load: the weights may then be ahead of the topology.
        if not (self._travel.saving and self.kept):
            self._watch.on_look()
            self._watch.tell_outside(thorough=True)

    def state_dict(self) -> dict[str, Any]:
        """As `rigl_core.adapter.SparseTraining.state_dict`. What belongs to a DTensor is a DTensor of its shape."""
        state = super().state_dict()
        for layer in self._masked.values():
            if is_sharded(layer.param):
                for arrays in state["memory"].values():
                    arrays[layer.layer.name] = layer.shaped(arrays[layer.layer.name])
        return state

    def load_state_dict(self, state: Mapping[str, Any], *, changed: Collection[str] = ()) -> None:
        """Continue from a result of `state_dict`, as `rigl_core.adapter.SparseTraining.load_state_dict`.

        Weights that only `sparsify`, or a load, has zeroed since the last step come back, as far as the masks allow.
        """
        check_state(self.plan, state, changed)
        self.kept.keep(self._masked.values(), loaded=True)
        super().load_state_dict(state, changed=changed)
        self._watch.settle()

    def zero_outside(self, model: nn.Module) -> None:
        """Set the weights outside the masks to zero in an average or a copy of the model, also inside a wrapper.

        Args:
            model: for example a `torch.optim.swa_utils.AveragedModel`; the layers in it have the names and shapes that
                they had in `sparsify`.

        Raises:
            TypeError, ValueError: naming ``model`` or the layer; nothing has been changed then.
        """
        for layer, param in zip(self._masked.values(), self._twins_in(model), strict=True):
            own = layer.own(param)
            zero_outside(own, layer.mask.reshape(own.shape))

    def _twins_in(self, model: nn.Module) -> list[nn.Parameter]:
        if not isinstance(model, nn.Module):
            raise errors.wrong_type("model", model, "torch.nn.Module")
        layers = [layer.layer for layer in self._masked.values()]
        for module in model.modules():
            named = dict(module.named_parameters(remove_duplicate=False))
            if all(layer.name in named and tuple(named[layer.name].shape) == layer.shape for layer in layers):
                return [named[layer.name] for layer in layers]
        names = ", ".join(repr(layer.name) for layer in layers)
        raise ValueError(f"model has no module that holds the layers {names}: give a copy or an average of the model.")

    def with_masks(self, model_state: Mapping[str, Any]) -> dict[str, Any]:
        """The model's state dict as a training with masks has it: dense weights in place of active ones.

        Another training with the same recipe loads it, and ``optimizer.state_dict()`` as it is. A training with active
        weights loads the states of one with masks without such a call.
        """
        return with_masks(self.plan.layers, model_state)

    def zero_gradients_outside(self) -> None:
        """Keep the gradients of active weights only, as ``backward()`` does; all of them if the coming step reads all.

        Call it before clipping, for gradients that come from elsewhere, such as `torch.func.grad` or
        `torch.autograd.grad`.
        """
        if not self.reads_gradients:
            for layer in self._masked.values():
                layer.zero_gradient_outside()

    def remove(self) -> None:
        """Take the hooks off; the weights stay sparse until the optimizer changes them."""
        for hook in (*self._hooks, *self._travel.hooks):
            hook.remove()
        self._hooks.clear()
        self._travel.hooks.clear()
        self._watch.end()
        for layer in self._active.values():
            layer.module.link = Link()

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseTraining:
        """A training of its own, of copies of the model and the optimizer, which must be copied at the same time."""
        if id(self._model) not in memo:
            raise TypeError(
                "a handle is copied together with its model and optimizer: copy.deepcopy((model, optimizer, sparse))."
            )
        own = (self._model, self.params, self._optimizers)
        changed = ("sparsity",) if self._refits else ()  # its masks may not have the plan's counts yet
        twin = SparseTraining(self.plan, *copy.deepcopy(own, memo), saved=self.state_dict(), changed=changed)
        twin.changed = self.changed
        return twin

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a handle cannot be pickled: save optimizer.state_dict(), which holds the topology, or the handle's own "
            "state_dict(). A copy in this process is copy.deepcopy((model, optimizer, sparse))."
        )


def is_sparsified(owner: Optimizer | Tensor) -> bool:
    """Whether a `SparseTraining` has its hooks on this optimizer or parameter."""
    kind = "_optimizer_step_pre_hooks" if isinstance(owner, Optimizer) else "_post_accumulate_grad_hooks"
    hooks = getattr(owner, kind, None) or {}
    methods = [inspect.unwrap(hook, stop=inspect.ismethod) for hook in hooks.values()]
    return any(isinstance(getattr(method, "__self__", None), SparseTraining) for method in methods)
