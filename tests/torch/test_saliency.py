"""GraSP and SynFlow scores of real models, compared with finite differences and products by hand.

Computing them changes nothing in the model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rigl_backends.torch import grasp_scores, sparsify, synflow_scores
from rigl_core import GraSP, SynFlow
from rigl_core.testing.checks import checks
from tests.torch.helpers import batch, mlp, same_bits, train_step

X, LABELS = batch(0)


class Everything(nn.Module):
    """Convolution, batch-norm, dropout, attention, an LSTM, a tied layer and an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Dropout(0.3)
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.lstm, self.last = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 6)
        self.tied, self.unused = self.last, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.norm(self.conv(x[:, None]))).transpose(1, 2)
        out: Tensor = self.tied(self.lstm(self.attention(hidden))[0][:, -1])
        return out


SCORES: dict[str, Callable[..., dict[str, Tensor]]] = {
    "GraSP": lambda model, **options: grasp_scores(model, functional.cross_entropy, X, LABELS, **options),
    "SynFlow": lambda model, **options: synflow_scores(model, X, 0.5, rounds=3, **options),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", SCORES)
def test_the_model_stays_as_it_was(method: str, training: bool) -> None:
    model = Everything()
    model.train(training)
    model.norm.eval()
    functional.cross_entropy(model(X), LABELS).backward()
    model.conv.bias.requires_grad_(False)

    def state() -> Any:
        params = {name: (p.detach().clone(), p.grad, p.requires_grad) for name, p in model.named_parameters()}
        modes = [module.training for module in model.modules()]
        return copy.deepcopy((params, dict(model.named_buffers()), modes, torch.get_rng_state()))

    before, parameters = state(), [id(p) for p in model.parameters()]
    scores = SCORES[method](model)
    assert same_bits(state(), before)
    assert [id(p) for p in model.parameters()] == parameters
    assert torch.is_grad_enabled()
    assert not scores["unused.weight"].any() or method == "SynFlow"
    for name, values in scores.items():
        assert values.shape == model.get_parameter(name).shape
        assert not values.requires_grad
        assert values.any() or name == "unused.weight"
    with torch.no_grad():
        again = SCORES[method](model)  # where nobody asked for gradients
    assert same_bits(again, scores)  # with dropout, too


@pytest.mark.parametrize("method", SCORES)
def test_layers_are_those_of_sparsify(method: str) -> None:
    model = Everything()
    options = {"include": ["norm.weight"], "exclude": ["lstm.*", "unused.*"]}
    recipe = {"GraSP": GraSP(0.5), "SynFlow": SynFlow(0.5)}[method]
    scores = SCORES[method](model, **options)
    sparse = sparsify(model, torch.optim.SGD(model.parameters(), 0.1), recipe, scores=scores, **options)
    assert list(scores) == list(sparse.masks)


def test_grasp_of_a_quadratic_loss_is_exact() -> None:
    torch.manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64)
    hessian = root @ root.T
    model = nn.Linear(3, 2, bias=False).double()
    weight = model.weight.detach().reshape(-1)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        flat = outputs.T.reshape(-1)  # of the identity: the weight itself
        return flat @ targets @ flat / 2

    scores = grasp_scores(model, loss, torch.eye(3, dtype=torch.float64), hessian)
    torch.testing.assert_close(scores["weight"].reshape(-1), weight * (hessian @ hessian @ weight))
    cold = grasp_scores(model, loss, torch.eye(3, dtype=torch.float64), hessian, temperature=2)
    torch.testing.assert_close(cold["weight"], scores["weight"] / 16)


def test_grasp_tells_how_the_squared_gradient_changes() -> None:
    model = mlp().double()
    x = X.double()

    def squared_norm() -> float:
        loss = functional.cross_entropy(model(x), LABELS)
        return float(sum(g.pow(2).sum() for g in torch.autograd.grad(loss, [model[0].weight, model[2].weight])))

    scores = grasp_scores(model, functional.cross_entropy, x, LABELS)
    for name, place in (("0.weight", (3, 5)), ("2.weight", (2, 7)), ("2.weight", (0, 0))):
        weight, norms, share = model.get_parameter(name).detach(), [], 1e-4
        own = float(weight[place])
        for sign in (-1, 1):
            weight[place] = own * (1 + sign * share)
            norms.append(squared_norm())
        weight[place] = own
        change = (norms[0] - norms[1]) / (2 * share)
        assert -2 * float(scores[name][place]) == pytest.approx(change, rel=1e-5, abs=1e-12)


def chain() -> nn.Sequential:
    """Two linear layers; one hidden unit carries more flow than the others."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[1.0, -2.0], [0.25, 0.5]])
    model[1].weight.data = torch.tensor([[-3.0, 1.0]])
    return model


def test_synflow_by_hand() -> None:
    """A score is |w| * dR/d|w|, which is the flow of all paths through the connection."""
    once = synflow_scores(chain(), torch.empty(1, 2), 0.0, rounds=1)
    assert once["0.weight"].tolist() == [[3.0, 6.0], [0.25, 0.5]]
    assert once["1.weight"].tolist() == [[9.0, 0.75]]
    assert synflow_scores(chain(), torch.empty(1, 2), 0.5, rounds=1)["0.weight"].tolist() == [[3.0, 6.0], [-1.0, -1.0]]
    # Each round looks again: once the weak path is cut, both ends of what is left carry the same.
    in_rounds = synflow_scores(chain(), torch.empty(1, 2), 0.7, rounds=10)
    assert in_rounds["0.weight"].tolist() == [[-1.0, 6.0], [-1.0, -1.0]]
    assert in_rounds["1.weight"].tolist() == [[6.0, -1.0]]


def test_synflow_runs_in_evaluation_mode() -> None:
    model = Everything()
    assert same_bits(SCORES["SynFlow"](model.train()), SCORES["SynFlow"](model.eval()))


def test_synflow_is_conserved_and_sees_magnitudes_alone() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Linear(9, 9, bias=False) for _ in range(3)))
    once = synflow_scores(model, torch.randn(2, 9), 0.0, rounds=1)
    totals = [float(values.sum()) for values in once.values()]
    assert totals == pytest.approx([totals[0]] * 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    assert same_bits(synflow_scores(model, torch.zeros(2, 9), 0.0, rounds=1), once)
    scores = synflow_scores(model, torch.zeros(1, 9), 0.9)
    assert sum(int((values >= 0).sum()) for values in scores.values()) == round(0.1 * 243)
    assert all((values >= 0).any() for values in scores.values())  # no layer collapses


@checks("M7")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("method", SCORES)
def test_scores_choose_the_topology(method: str, scope: Any, dtype: torch.dtype) -> None:
    model = mlp()
    scores = SCORES[method](model)  # of which float16 could not hold the smallest
    model.to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    recipe = {"GraSP": GraSP, "SynFlow": SynFlow}[method](0.5, scope=scope)
    sparse = sparsify(model, optimizer, recipe, scores=scores)
    masks = sparse.masks
    groups = [list(masks)] if scope == "global" else [[name] for name in masks]
    for names in groups:
        chosen = torch.cat([scores[name].float()[masks[name]] for name in names])
        left = torch.cat([scores[name].float()[~masks[name]] for name in names])
        assert chosen.numel() == sum(sparse.plan.active[list(masks).index(name)] for name in names)
        assert chosen.min() >= left.max()
    if method == "SynFlow" and scope == "global":
        assert all(torch.equal(masks[name], scores[name] >= 0) for name in masks)
    train_step(model, optimizer, (X.to(dtype), LABELS))
    assert same_bits(sparse.masks, masks)


@checks("P3")
def test_what_cannot_be_scored() -> None:
    model: Any = mlp()
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: SCORES["GraSP"](model.forward), TypeError, "model is a method"),
        (lambda: SCORES["SynFlow"]({}), TypeError, "model is a dict"),
        (lambda: SCORES["GraSP"](model, temperature=0), ValueError, "temperature is 0: it must be positive"),
        (lambda: SCORES["GraSP"](model, exclude=["*"]), ValueError, "the model has nothing to sparsify"),
        (lambda: SCORES["SynFlow"](model, include=["fc"]), ValueError, "include holds the pattern 'fc'"),
        (lambda: synflow_scores(model, X, 1.0), ValueError, "sparsity is 1.0"),
        (lambda: synflow_scores(model, X, 0.5, rounds=0), ValueError, "rounds is 0: it must be at least 1"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    huge = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(9)))
    for layer in huge:
        nn.init.constant_(layer.weight, math.ldexp(1.0, 126))
    with pytest.raises(ValueError, match="model has a flow that float64 cannot hold"):
        synflow_scores(huge, torch.zeros(1, 4), 0.5)
