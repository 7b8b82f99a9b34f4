"""Errors are in the user's own words, and an error changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch import sparsify
from rigl_core import PerLayer, RigL, Static, SynFlow, Uniform, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.torch.helpers import batch, hooks_of, mlp, rigl, same_bits, snapshot, train_step

Call = Callable[[nn.Module, Optimizer], object]


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def scores_of(model: nn.Module) -> dict[str, Tensor]:
    return {f"{i}.weight": model.get_parameter(f"{i}.weight").detach().clone() for i in (0, 2)}


@contextmanager
def nothing_changes(model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    before, hooks = snapshot(model, optimizer), hooks_of(model, optimizer)
    yield
    assert same_bits(snapshot(model, optimizer), before)
    assert hooks_of(model, optimizer) == hooks


BAD_CALLS: dict[str, tuple[Call, type[Exception], str]] = {
    "no module": (lambda m, o: sparsify(dict(m.named_parameters()), o, rigl()), TypeError, "model is a dict"),
    "no optimizer": (lambda m, o: sparsify(m, o.step, rigl()), TypeError, "optimizer is a method"),
    "sparsity 1": (lambda m, o: sparsify(m, o, rigl(1.0)), ValueError, r"sparsity is 1\.0: it must be in \[0, 1\)"),
    "sparsity -0.1": (lambda m, o: sparsify(m, o, rigl(-0.1)), ValueError, r"sparsity is -0\.1"),
    "sparsity nan": (lambda m, o: sparsify(m, o, rigl(float("nan"))), ValueError, "sparsity is nan"),
    "sparsity in percent": (lambda m, o: sparsify(m, o, rigl("90%")), TypeError, "sparsity is '90%'"),
    "a layer's sparsity": (
        lambda m, o: sparsify(m, o, rigl(layer_sparsity={"0.*": 2})),
        ValueError,
        r"layer_sparsity\['0\.\*'\] is 2",
    ),
    "include": (lambda m, o: sparsify(m, o, rigl(), include=["1.*"]), ValueError, r"include holds the pattern '1\.\*'"),
    "exclude": (lambda m, o: sparsify(m, o, rigl(), exclude=["fc"]), ValueError, "exclude holds the pattern 'fc'"),
    "bare string": (lambda m, o: sparsify(m, o, rigl(), exclude="0.*"), TypeError, r"exclude is the string '0\.\*'"),
    "dense": (lambda m, o: sparsify(m, o, rigl(dense=["head.*"])), ValueError, r"dense holds the pattern 'head\.\*'"),
    "layer_sparsity": (
        lambda m, o: sparsify(m, o, rigl(layer_sparsity={"head": 0.5})),
        ValueError,
        "layer_sparsity holds the pattern 'head'",
    ),
    "per layer": (
        lambda m, o: sparsify(m, o, Static(distribution=PerLayer({"0.*": 0.5}))),
        ValueError,
        r"sparsities says nothing of layer '2\.weight'",
    ),
    "no scores": (
        lambda m, o: sparsify(m, o, SynFlow(0.5)),
        TypeError,
        "scores is NoneType: the recipe asks for arrays",
    ),
    "scores nobody asked for": (
        lambda m, o: sparsify(m, o, rigl(), scores=scores_of(m)),
        ValueError,
        "scores are given, and the recipe starts from 'random'",
    ),
    "a layer without scores": (
        lambda m, o: sparsify(m, o, SynFlow(0.5), scores={"0.weight": m[0].weight}),
        ValueError,
        r"scores has none for layer '2\.weight': give an array of shape \(6, 16\)",
    ),
    "scores of another shape": (
        lambda m, o: sparsify(m, o, SynFlow(0.5), scores={**scores_of(m), "2.weight": torch.ones(16, 6)}),
        ValueError,
        r"scores of layer '2\.weight' have the shape \(16, 6\): they must have the layer's, \(6, 16\)",
    ),
    "scores in lists": (
        lambda m, o: sparsify(m, o, SynFlow(0.5), scores={"0.weight": [], "2.weight": []}),
        TypeError,
        r"scores of layer '0\.weight' are a list: give an array",
    ),
    "end before begin": (
        lambda m, o: sparsify(m, o, RigL(0.9, schedule=UpdateSchedule(end=5, begin=6))),
        ValueError,
        "end is 5, before begin=6",
    ),
    "all excluded": (
        lambda m, o: sparsify(m, o, rigl(), exclude=["*"]),
        ValueError,
        "the model has nothing to sparsify",
    ),
    "all pinned": (lambda m, o: sparsify(m, o, rigl(dense=["*"])), ValueError, "sparsity=0.7 has nothing to sparsify"),
    "only the first": (
        lambda m, o: sparsify(m, o, rigl(distribution=Uniform()), exclude=["2.*"]),
        ValueError,
        r"Uniform\(first_dense=False\)",
    ),
    "cannot compensate": (
        lambda m, o: sparsify(m, o, rigl(0.9, dense=["0.*"], compensate=True)),
        ValueError,
        "The highest sparsity possible is 0.333333",
    ),
}


@checks("P3")
@pytest.mark.parametrize("case", BAD_CALLS)
def test_wrong_arguments(case: str) -> None:
    call, error, message = BAD_CALLS[case]
    model = mlp()
    optimizer = sgd(model)
    train_step(model, optimizer, batch(0))
    with nothing_changes(model, optimizer), pytest.raises(error, match=message):
        call(model, optimizer)
    sparsify(model, optimizer, rigl())


def frozen(model: nn.Sequential) -> None:
    model[2].weight.requires_grad_(False)


def cast(dtype: torch.dtype) -> Callable[[nn.Sequential], None]:
    def change(model: nn.Sequential) -> None:
        model[2].weight = nn.Parameter(model[2].weight.detach().to(dtype), requires_grad=dtype.is_complex)

    return change


def on_meta(model: nn.Sequential) -> None:
    model[2].to("meta")


def lazy(model: nn.Sequential) -> None:
    model[2] = nn.LazyLinear(6)


def sparse_embedding(model: nn.Sequential) -> None:
    model[2] = nn.EmbeddingBag(16, 6, sparse=True)


def no_layers(model: nn.Sequential) -> None:
    model[0], model[2] = nn.LayerNorm(12), nn.Bilinear(2, 3, 4)


BAD_MODELS: dict[str, tuple[Callable[[nn.Sequential], None], str]] = {
    "frozen": (frozen, r"layer '2\.weight' is frozen \(requires_grad=False\)"),
    "complex": (cast(torch.complex64), r"layer '2\.weight' has the dtype complex64"),
    "8 bits": (cast(torch.float8_e4m3fn), r"layer '2\.weight' has the dtype float8_e4m3fn"),
    "integers": (cast(torch.int8), r"layer '2\.weight' has the dtype int8"),
    "meta": (on_meta, r"layer '2\.weight' is on the meta device"),
    "lazy": (lazy, r"model has the lazy parameter '2\.weight'"),
    "sparse gradients": (sparse_embedding, r"layer '2\.weight' is an embedding with sparse gradient tensors"),
    "no layers": (no_layers, "the model has nothing to sparsify"),
}


@checks("P3")
@pytest.mark.parametrize("case", BAD_MODELS)
def test_models_that_cannot_be_sparsified(case: str) -> None:
    change, message = BAD_MODELS[case]
    model = mlp()
    change(model)
    optimizer = sgd(model)
    # What has no values has no bits to compare: for such models the first layer's must do.
    watched = model[0] if case in ("meta", "lazy") else model
    include = ["2.weight"] if case == "sparse gradients" else []
    with nothing_changes(watched, optimizer), pytest.raises(ValueError, match=message):
        sparsify(model, optimizer, rigl(), include=include)
    assert hooks_of(model, optimizer) == 0


@checks("P3")
def test_optimizers_that_cannot_follow() -> None:
    model = mlp()
    part = torch.optim.SGD(model[0].parameters(), 0.1)
    lbfgs = torch.optim.LBFGS(model.parameters())
    foreign = sgd(mlp())
    for optimizer, message in (
        (part, r"optimizer does not hold layer '2\.weight'"),
        (foreign, r"optimizer does not hold layer '0\.weight'"),
        (lbfgs, "optimizer is L-BFGS, whose history mixes all weights"),
    ):
        with nothing_changes(model, optimizer), pytest.raises(ValueError, match=message):
            sparsify(model, optimizer, rigl())
    sparsify(model, part, rigl(), exclude=["2.*"])


@checks("P3")
def test_what_is_sparsified_already() -> None:
    model, other = mlp(), mlp()
    optimizer, second = sgd(model), sgd(model)
    both = torch.optim.SGD([*model.parameters(), *other.parameters()], 0.1)
    sparse = sparsify(model, optimizer, rigl())
    with nothing_changes(model, optimizer), pytest.raises(ValueError, match="optimizer is already sparsified"):
        sparsify(model, optimizer, rigl())
    with (
        nothing_changes(model, second),
        pytest.raises(ValueError, match=r"layer '0\.weight' is already sparsified with"),
    ):
        sparsify(model, second, rigl())
    sparsify(other, both, rigl())
    with nothing_changes(model, both), pytest.raises(ValueError, match="optimizer is already sparsified"):
        sparsify(model, both, rigl())
    sparse.remove()
    sparsify(model, second, rigl())


@checks("P3")
@pytest.mark.parametrize("step", [0, 2], ids=["ordinary", "update"])
@pytest.mark.parametrize("shape", [(5, 16), (1, 16), (6, 20)])
def test_a_changed_shape_is_refused_as_soon_as_it_is_seen(step: int, shape: tuple[int, int]) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, rigl())
    for earlier in range(step):
        train_step(model, optimizer, batch(earlier))
    optimizer.zero_grad()
    model[2].weight.data = torch.ones(shape)
    message = rf"layer '2\.weight' had the shape \(6, 16\) and now has the parameter shape \({shape[0]}, {shape[1]}\)"
    with nothing_changes(model, optimizer):
        with pytest.raises(ValueError, match=message):
            nn.functional.linear(torch.ones(3, shape[1]), model[2].weight).sum().backward()
        with pytest.raises(ValueError, match=message):
            optimizer.step()
    assert sparse.step == step


@checks("P3")
@pytest.mark.parametrize("step", [0, 2], ids=["ordinary", "update"])
def test_a_sparse_gradient_tensor_is_refused(step: int) -> None:
    model = nn.Sequential(nn.Embedding(9, 12), mlp())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, rigl(), include=["0.weight"])

    def backward() -> None:
        optimizer.zero_grad()
        model(torch.arange(9)).sum().backward()

    for _ in range(step):
        backward()
        optimizer.step()
    model[0].sparse = True
    with nothing_changes(model, optimizer), pytest.raises(ValueError, match=r"layer '0\.weight' has a sparse gradient"):
        backward()
    optimizer.zero_grad()
    weight: Tensor = model[0].weight
    weight.grad = torch.eye(9, 12).to_sparse()
    with nothing_changes(model, optimizer), pytest.raises(ValueError, match=r"layer '0\.weight' has a sparse gradient"):
        optimizer.step()
    assert sparse.step == step
    model[0].sparse = False
    backward()
    optimizer.step()
    assert sparse.step == step + 1
