"""The quickstart in PyTorch: an ordinary model and an ordinary training loop, plus one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from data import Batch, Images, Labels
from history import History, Mask, Watch
from rigl_backends.torch import sparsify
from rigl_core import SparsityWarning
from runs import Arrays, Run


class MLP(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (nn.Linear(layer.n_in, layer.n_out) for layer in run.layers)
        self.load_state_dict({name: torch.tensor(array) for name, array in run.weights.items()})

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (batch, classes), of images, (batch, pixels)."""
        hidden1 = functional.relu(self.fc1(images))
        hidden2 = functional.relu(self.fc2(hidden1))
        logits: Tensor = self.fc3(hidden2)
        return logits


def tensors(arrays: Arrays | None) -> dict[str, Tensor] | None:
    """The arrays as tensors."""
    return None if arrays is None else {name: torch.from_numpy(array) for name, array in arrays.items()}


def offers(run: Run) -> bool:
    """Whether the first layer gains by being truly sparse: if it is large, and numba is there to make kernels."""
    model = MLP(run)
    optimizer = torch.optim.SGD(model.parameters())
    assert run.recipe is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SparsityWarning)  # the other layers are too small to gain
            sparsify(model, optimizer, run.recipe, storage="active")
    except ValueError:
        return False
    return find_spec("numba") is not None


def held(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The bytes of parameters, gradients, and the optimizer's state, to which the topology belongs."""
    params = list(model.parameters())
    numbers = [*params, *(param.grad for param in params), *tree_leaves(optimizer.state_dict())]
    return sum(number.nbytes for number in numbers if isinstance(number, Tensor))


def train(run: Run, batches: Iterable[Batch]) -> History:
    """Train the network of ``run``."""
    model = MLP(run)
    optimizer = torch.optim.SGD(model.parameters(), lr=run.learning_rate, momentum=run.momentum)
    options: dict[str, Any] = {"scores": tensors(run.scores), "storage": run.storage}
    # The one line that makes it sparse; dense training has no recipe.
    sparse = sparsify(model, optimizer, run.recipe, **options) if run.recipe else None

    @torch.no_grad()
    def predict(images: Images) -> Labels:
        labels: Labels = model(torch.from_numpy(images)).argmax(dim=1).numpy()
        return labels

    def masks() -> dict[str, Mask]:
        return {name: mask.numpy() for name, mask in sparse.masks.items()} if sparse else {}

    def weights() -> Arrays:
        return {name: param.detach().numpy().copy() for name, param in model.named_parameters()}

    watch = Watch(run, predict, masks, weights, lambda: held(model, optimizer))
    for images, labels in batches:
        logits = model(torch.from_numpy(images))
        loss = functional.cross_entropy(logits, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step_done()
    return watch.history
