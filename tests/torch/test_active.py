"""Truly sparse Linear modules: whole trainings, checkpoints in both storages, and what users do wrong."""

from __future__ import annotations

import copy
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from rigl_backends.torch import SparseLinear, SparseTraining, sparsify
from rigl_core import (
    SET,
    SNFS,
    Constant,
    CubicRamp,
    GradualPruning,
    Recipe,
    RigL,
    SparsityWarning,
    Static,
    Uniform,
    UpdateSchedule,
)
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=40, every=3)
FREE = Uniform(first_dense=False)
RIGL = RigL(0.8, schedule=SCHEDULE, drop_fraction=Constant(0.4), distribution=FREE)
RECIPES: dict[str, Recipe] = {
    "RigL": RIGL,
    "SET": SET(0.8, schedule=SCHEDULE, distribution=FREE),
    "Static": Static(0.8, distribution=FREE),
    "pruning": GradualPruning(0.9, schedule=SCHEDULE, ramp=CubicRamp(initial=0.6), distribution=FREE),
}
ACTIVE: Any = {"*": "active"}
OPTIONS: dict[str, Any] = {
    "SGD": {"momentum": 0.9},
    # From 0, the first step of every grown weight would be the learning rate: ties, but for the rounding of products.
    "Adagrad": {"initial_accumulator_value": 0.1},
}
Training = tuple[nn.Sequential, torch.optim.Optimizer, SparseTraining]


def make(storage: Any, recipe: Recipe = RIGL, optimizer: str = "Adam") -> Training:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 300), nn.ReLU(), nn.Linear(300, 30), nn.ReLU(), nn.Linear(30, 10))
    own = getattr(torch.optim, optimizer)(model.parameters(), 0.01, **OPTIONS.get(optimizer, {}))
    return model, own, sparsify(model, own, recipe, storage=storage)


def data(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(2, 16, 20, generator=generator), torch.randint(0, 10, (32,), generator=generator)


def loss_of(model: nn.Module, step: int) -> Tensor:
    x, labels = data(step)
    return functional.cross_entropy(model(x).flatten(0, 1), labels)


def train(training: Training, steps: range) -> list[float]:
    model, optimizer, _ = training
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_equal_masks(one: SparseTraining, other: SparseTraining) -> None:
    assert one.step == other.step
    for name, mask in one.masks.items():
        assert torch.equal(mask, other.masks[name]), name


@checks("A1", "V1", "V2")
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "Adagrad"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_is_that_with_masks(recipe: str, optimizer: str) -> None:
    active, masked = make(ACTIVE, RECIPES[recipe], optimizer), make("masks", RECIPES[recipe], optimizer)
    assert train(active, range(30)) == pytest.approx(train(masked, range(30)), rel=1e-3)
    assert_equal_masks(active[2], masked[2])
    assert str(active[2].table) == str(masked[2].table)
    held = [values.numel() for values in active[1].state[active[0][2].weight].values() if values.dim()]
    assert set(held) == {active[0][2].index.size}  # type: ignore[union-attr]


@checks("P2", "A1")
@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize(("before", "after"), [(ACTIVE, ACTIVE), (ACTIVE, "masks"), ("masks", ACTIVE)])
def test_a_checkpoint_in_either_storage(before: Any, after: Any, model_first: bool) -> None:
    """Saved with one storage, and continued with the same or the other: the training goes on."""
    training = make(before)
    train(training, range(11))
    model, optimizer = copy.deepcopy((training[0].state_dict(), training[1].state_dict()))
    model = training[2].with_masks(model) if after == "masks" else model
    resumed = make(after)
    for load in (0, 1) if model_first else (1, 0):
        resumed[load].load_state_dict((model, optimizer)[load])
    went_on = train(training, range(11, 25))
    assert train(resumed, range(11, 25)) == (went_on if before is after else pytest.approx(went_on, rel=1e-3))
    assert_equal_masks(training[2], resumed[2])


@checks("P2")
def test_a_checkpoint_of_a_ramp() -> None:
    """The number of weights changes; new objects take the saved number."""
    training = make(ACTIVE, RECIPES["pruning"])
    train(training, range(15))
    model, optimizer = copy.deepcopy((training[0].state_dict(), training[1].state_dict()))
    resumed = make(ACTIVE, RECIPES["pruning"])
    resumed[1].load_state_dict(optimizer)
    resumed[0].load_state_dict(model)
    assert train(training, range(15, 25)) == train(resumed, range(15, 25))


@checks("P4")
def test_the_best_weights_bring_their_topology() -> None:
    """Of a model alone: the masks are those of its weights, and what is new gets fresh state."""
    training = make(ACTIVE)
    best = copy.deepcopy(training[0].state_dict())
    masks = training[2].masks
    train(training, range(10))
    training[0].load_state_dict(best)
    for name, mask in training[2].masks.items():
        assert torch.equal(mask, masks[name])
    train(training, range(10, 14))


@checks("P4")
def test_dense_weights_outside_the_masks_are_told() -> None:
    training = make(ACTIVE)
    dense = {f"{i}.weight": torch.rand_like(training[0][i].dense()) + 1 for i in (0, 2, 4)}  # type: ignore[operator]
    state = {key: value for key, value in training[0].state_dict().items() if not key.endswith("_places")} | dense
    training[0].load_state_dict(state)
    with pytest.warns(SparsityWarning, match="weights lie outside their masks: 4,800 of '0.weight'"):
        training[2].masks  # noqa: B018


def test_copies() -> None:
    """All three together are a training of their own; a copy of the model alone is a plain one."""
    training = make(ACTIVE)
    train(training, range(5))
    twin, alone = copy.deepcopy(training), copy.deepcopy(training[0])
    assert train(training, range(5, 12)) == train(twin, range(5, 12))
    assert_equal_masks(training[2], twin[2])
    loss_of(alone, 3).backward()  # type: ignore[no-untyped-call]
    assert alone[0].link.samples == []  # type: ignore[union-attr]


@checks("P3")
def test_an_average_over_topologies_is_refused() -> None:
    """Its numbers would be of other connections."""
    training = make(ACTIVE)
    average = AveragedModel(training[0])
    for step in range(5):
        train(training, range(step, step + 1))
        average.update_parameters(training[0])
    with pytest.raises(ValueError, match=r"average the dense\(\) weights"):
        average(data(0)[0])


@checks("G2", "A2")
@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_gradient_that_was_zeroed_does_not_count(set_to_none: bool) -> None:
    """At an update: micro-batches add, and what a user has thrown away is gone."""
    plain, other = make(ACTIVE), make(ACTIVE)
    for model, optimizer, _ in (plain, other):
        optimizer.zero_grad()
        if model is other[0]:
            (100 * loss_of(model, 7)).backward()  # type: ignore[no-untyped-call]
            optimizer.zero_grad(set_to_none=set_to_none)
        for part in (0, 1):
            (loss_of(model, part) / 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert_equal_masks(plain[2], other[2])
    assert plain[0][0].link.samples == []  # type: ignore[union-attr]


class Twice(nn.Module):
    """A layer that is used twice, in checkpoints or not."""

    def __init__(self, *, recomputes: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.recomputes = nn.Linear(40, 40), recomputes

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = checkpoint(self._half, x, use_reentrant=False) if self.recomputes else self._half(x)
        return x

    def _half(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


@checks("A2")
def test_several_uses_and_checkpoints() -> None:
    """The dense gradient of an update is the sum over uses; recomputed calls give no sample twice."""
    masks = []
    for storage, recomputes in ((ACTIVE, False), (ACTIVE, True), ("masks", False)):
        model = Twice(recomputes=recomputes)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparse = sparsify(model, optimizer, RIGL, storage=storage)
        for step in range(8):
            optimizer.zero_grad()
            x = torch.randn(16, 40, generator=torch.Generator().manual_seed(step)).requires_grad_()
            model(x).square().sum().backward()
            optimizer.step()
        masks.append(sparse.masks["layer.weight"])
    assert torch.equal(masks[0], masks[2])
    assert torch.equal(masks[1], masks[2])


def test_without_gradients_nothing_is_kept() -> None:
    model = make(ACTIVE)[0]
    with torch.no_grad():
        model.eval()(data(0)[0])
    assert model[0].link.samples == []  # type: ignore[union-attr]


def test_a_transformer_layer_in_evaluation() -> None:
    """PyTorch has a fused path there, which reads dense weights; attention's own projections keep their masks."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
    dense = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, RIGL, storage={"linear*": "active"})
    assert isinstance(model.linear1, SparseLinear)
    dense.load_state_dict(sparse.with_masks(model.state_dict()))
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), dense.eval()(x), rtol=1e-4, atol=1e-5)


@checks("P3", "A3")
def test_layers_that_cannot_be_active_are_named() -> None:
    tied = nn.Linear(300, 300)
    model = nn.ModuleDict(
        {"a": tied, "b": tied, "low": nn.Linear(300, 300).half(), "line": nn.Conv1d(300, 300, 1)}
        | {"attention": nn.MultiheadAttention(300, 2), "plain": nn.Linear(300, 300)}
        | {"wide": nn.Conv3d(300, 300, 1), "back": nn.ConvTranspose2d(300, 300, 1)}
        | {"mirror": nn.Conv2d(300, 300, 1, padding_mode="reflect")}
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.warns(SparsityWarning) as told:
        sparsify(model, optimizer, RIGL, storage="active")
    message = next(str(one.message) for one in told if "keep their masks" in str(one.message))
    for reason in (
        "'a.weight' is also 'b.weight'",
        "'low.weight' is float16",
        "'line.weight' belongs to a Conv1d, and only a plain torch.nn.Linear or torch.nn.Conv2d can",
        "'wide.weight' belongs to a Conv3d",
        "'back.weight' belongs to a ConvTranspose2d",
        "'mirror.weight' pads by 'reflect', and the kernels pad with zeros",
        "'attention.out_proj.weight' belongs to a NonDynamicallyQuantizableLinear",
    ):
        assert reason in message
    assert isinstance(model["plain"], SparseLinear)
    assert type(model["a"]) is nn.Linear


@checks("P3")
def test_refused_before_anything_changes() -> None:
    model = nn.Linear(300, 300)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = model.weight.detach().clone()
    for recipe, storage, message in (
        (SNFS(0.8, schedule=SCHEDULE, distribution=FREE), "active", "SNFS reads a momentum"),
        (RIGL, {"weight": "dense"}, "storage is 'dense'"),
    ):
        with pytest.raises(ValueError, match=message):
            sparsify(model, optimizer, recipe, storage=storage)  # type: ignore[arg-type]
    assert type(model) is nn.Linear
    assert torch.equal(model.weight, before)


@checks("P3")
def test_mistakes_are_named() -> None:
    model, optimizer, _ = make(ACTIVE)
    x = data(0)[0]
    with pytest.raises(TypeError, match=r"torch.float64 inputs for torch.float32 weights"):
        model[0](x.double())
    with pytest.raises(ValueError, match=r"inputs have shape \(2, 16, 19\): the module has 20 features"):
        model[0](x[..., :19])
    (grad,) = torch.autograd.grad(model(x.requires_grad_()).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    optimizer.zero_grad()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    with pytest.raises(ValueError, match=r"the gradient of '0.weight' holds active weights alone"):
        optimizer.step()
    with pytest.raises(TypeError, match=r"is made by rigl_backends.torch.sparsify"):
        SparseLinear()
    broken = {**model.state_dict(), "0.weight_places": torch.arange(3, dtype=torch.int32)}
    with pytest.raises(RuntimeError, match=r"0.weight: it has shape \(1200,\), and 3 places"):
        model.load_state_dict(broken)


def unmade(side: int) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    with torch.device("meta"):
        model = nn.Sequential(
            nn.Linear(20, side), nn.BatchNorm1d(side), nn.ReLU(), nn.Linear(side, side), nn.Linear(side, 4)
        )
    return model, torch.optim.Adam(model.parameters(), 0.01)


@checks("A1", "N2")
def test_a_model_that_was_never_made() -> None:
    """It gets the topology of one that was, its own initial values, and the optimizer's parameters."""
    torch.manual_seed(0)
    model, optimizer = unmade(300)
    held = [*model.parameters()]
    sparse = sparsify(model, optimizer, RIGL, storage={"0.*": "active", "3.*": "active"}, exclude=["4.*"])
    assert [*map(id, model.parameters())] == [*map(id, held)]
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    twin = nn.Sequential(nn.Linear(20, 300), nn.BatchNorm1d(300), nn.ReLU(), nn.Linear(300, 300), nn.Linear(300, 4))
    own = torch.optim.Adam(twin.parameters(), 0.01)
    made = sparsify(twin, own, RIGL, storage={"0.*": "active", "3.*": "active"}, exclude=["4.*"])
    assert_equal_masks(sparse, made)
    bound = 1 / 300**0.5
    assert model[3].weight.abs().max() <= bound
    assert model[3].weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    for step in range(5):
        optimizer.zero_grad()
        model(data(step)[0].flatten(0, 1)).square().mean().backward()
        optimizer.step()
    assert not model[3].weight.isnan().any()


@checks("P3")
def test_what_cannot_be_made_is_named() -> None:
    model, optimizer = unmade(300)
    with pytest.raises(ValueError, match=r"layer '0.weight' is on the meta device.*storage='active'"):
        sparsify(model, optimizer, RIGL)
    with pytest.raises(ValueError, match=r"layer '3.weight' is on the meta device, and keeps its mask"):
        sparsify(model, optimizer, RIGL, storage={"0.*": "active"})
    model.register_parameter("scale", nn.Parameter(torch.empty(1, device="meta")))
    with pytest.raises(ValueError, match="a Sequential without reset_parameters"):
        sparsify(model, optimizer, RIGL, storage=ACTIVE)
    assert model[0].weight.is_meta


@checks("P3")
def test_a_ramp_in_replicas_is_refused(tmp_path: Path) -> None:
    """DistributedDataParallel would lose the parameters whose size changes, and replicas would part."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(make(ACTIVE, RECIPES["pruning"])[0])
        with pytest.raises(ValueError, match="this recipe's ramp changes the number of active weights"):
            wrapped(data(0)[0])
    finally:
        dist.destroy_process_group()


def replica(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model, optimizer, sparse = make(ACTIVE)
    wrapped = nn.parallel.DistributedDataParallel(model)
    for step in range(8):
        optimizer.zero_grad()
        x, labels = data(step)
        functional.cross_entropy(wrapped(x[rank]), labels.reshape(2, 16)[rank]).backward()
        optimizer.step()
    torch.save(sparse.masks, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@checks("A2", "G2")
def test_replicas_have_one_topology(tmp_path: Path) -> None:
    """Two processes, each with half of a batch, move as one process with all of it."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=replica, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    masks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    alone = make(ACTIVE)
    train(alone, range(8))
    for name, mask in alone[2].masks.items():
        assert torch.equal(masks[0][name], masks[1][name])
        assert torch.equal(masks[0][name], mask)
