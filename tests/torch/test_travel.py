"""The topology travels in the optimizer's state: whoever saves and loads model and optimizer resumes bit for bit."""

from __future__ import annotations

import copy
import io
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import NM, Blocks, Constant, PerLayer, Recipe, RigL, SparsityWarning, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.torch.helpers import METHODS, SCHEDULE, batch, mlp, rigl, same_bits, snapshot, train_step

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "adamw": lambda params: torch.optim.AdamW(params, 0.01),
    "momentum": lambda params: torch.optim.SGD(params, 0.1, momentum=0.9),
    "sgd": lambda params: torch.optim.SGD(params, 0.1),  # without any state of its own
    "adagrad": lambda params: torch.optim.Adagrad(params, 0.1, initial_accumulator_value=0.1),
}
STEPS = 15


class Run:
    """A training by which the steps of loading can be tried in any order."""

    def __init__(self, kind: str, recipe: Recipe, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.recipe, self.dtype = mlp(seed=seed).to(dtype), recipe, dtype
        self.optimizer = OPTIMIZERS[kind](self.model.parameters())
        self.sparse: SparseTraining | None = None

    def sparsify(self, **options: Any) -> None:
        self.sparse = sparsify(self.model, self.optimizer, self.recipe, **options)

    def train(self, first: int, last: int) -> Run:
        for step in range(first, last):
            x, labels = batch(step)
            train_step(self.model, self.optimizer, (x.to(self.dtype), labels))
        return self

    def save(self) -> bytes:
        file = io.BytesIO()
        torch.save((self.model.state_dict(), self.optimizer.state_dict()), file)
        return file.getvalue()

    def bits(self) -> Any:
        assert self.sparse is not None
        return *snapshot(self.model, self.optimizer), self.sparse.state_dict()

    def load(self, saved: bytes, order: str) -> Run:
        """Take the steps of an order: M and O load, S sparsifies, and what other tools do besides."""
        model, optimizer = torch.load(io.BytesIO(saved), weights_only=True)
        for name in order:
            if name == "M":
                self.model.load_state_dict(model)
            elif name == "O":
                self.optimizer.load_state_dict(optimizer)
            elif name == "S":
                self.sparsify()
            elif name == "T":  # a training went on before the load
                self.train(40, 47)
            elif name == "A":  # Accelerate saves and loads an optimizer that it prepares
                with warnings.catch_warnings():  # a model that was loaded in the middle of a training is told
                    warnings.simplefilter("ignore" if "T" in order else "error", SparsityWarning)
                    self.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
            elif name == "D":  # the data of all parameters moves
                self.model.to(torch.float64).to(self.dtype)
        return self


def sparsified(kind: str, recipe: Recipe, **options: Any) -> Run:
    run = Run(kind, recipe, **options)
    run.sparsify()
    return run


ORDERS = ("MSO", "SMO", "SOM", "MOS", "OMS", "OSM", "STMO", "STOM", "MSAO", "SDMO", "SMAO", "STMAO", "MSAADO", "MOSO")


@checks("P2")
@pytest.mark.parametrize(
    ("kind", "method"),
    [*((kind, "RigL") for kind in OPTIMIZERS), *(("adamw", method) for method in METHODS if method != "RigL")],
)
def test_model_and_optimizer_are_enough_in_any_order(kind: str, method: str) -> None:
    whole = sparsified(kind, METHODS[method]).train(0, STEPS).bits()
    for stop, order in zip((0, 3, 8, 13) * 4, ORDERS, strict=False):
        if stop == 0 and kind != "sgd" and kind != "momentum" and order.index("O") < order.index("S"):
            stop = 1  # such a state without steps is refused by PyTorch's own optimizers, which miss their counter
        saved = sparsified(kind, METHODS[method]).train(0, stop).save()
        resumed = Run(kind, METHODS[method], seed=1).load(saved, order).train(stop, STEPS)
        assert same_bits(resumed.bits(), whole), (stop, order)


@checks("P2")
@pytest.mark.parametrize("method", ["RigL", "SNFS", "DNW"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_every_precision(method: str, dtype: torch.dtype) -> None:
    whole = sparsified("momentum", METHODS[method], dtype=dtype).train(0, STEPS).bits()
    saved = sparsified("momentum", METHODS[method], dtype=dtype).train(0, 8).save()
    for order in ("MSO", "MOS", "OSM"):
        resumed = Run("momentum", METHODS[method], seed=1, dtype=dtype).load(saved, order).train(8, STEPS)
        assert same_bits(resumed.bits(), whole)


@checks("P2")
def test_the_optimizer_holds_nothing_but_its_own() -> None:
    """The topology is in what is saved, and nowhere else; what is saved does not change when the training goes on."""
    run = sparsified("adamw", METHODS["RigL"]).train(0, 3)
    state = run.optimizer.state_dict()
    before = copy.deepcopy(state)
    resumed = sparsified("adamw", METHODS["RigL"], seed=1)
    resumed.model.load_state_dict(run.model.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(state))
    for one in (run, resumed):
        assert all(set(own) == {"step", "exp_avg", "exp_avg_sq"} for own in one.optimizer.state.values())
    run.train(3, 9)
    masks = {name: value for name, value in state["state"][0].items() if name.startswith("sparse_")}
    assert same_bits(masks, {name: before["state"][0][name] for name in masks})
    assert set(masks) == {"sparse_mask", "sparse_header"}


@checks("P2")
def test_the_handles_own_state_still_goes_with_it() -> None:
    whole = sparsified("adamw", METHODS["SNFS"]).train(0, STEPS).bits()
    first = sparsified("adamw", METHODS["SNFS"]).train(0, 8)
    assert first.sparse is not None
    states = {"M": first.model.state_dict(), "O": first.optimizer.state_dict(), "H": first.sparse.state_dict()}
    for order in itertools.permutations("MOH"):
        resumed = sparsified("adamw", METHODS["SNFS"], seed=1)
        objects = {"M": resumed.model, "O": resumed.optimizer, "H": resumed.sparse}
        for name in order:
            objects[name].load_state_dict(copy.deepcopy(states[name]))
        assert same_bits(resumed.train(8, STEPS).bits(), whole)


def without_topology(state: dict[str, Any]) -> dict[str, Any]:
    """A state as an older version saved it."""
    own = {
        key: {name: value for name, value in values.items() if not name.startswith("sparse_")}
        for key, values in state["state"].items()
    }
    return {**state, "state": {key: values for key, values in own.items() if values}}


@checks("P2", "P4")
def test_a_checkpoint_without_a_topology_is_told_and_not_trained() -> None:
    saved = sparsified("adamw", METHODS["RigL"]).train(0, 8)
    assert saved.sparse is not None
    old = without_topology(saved.optimizer.state_dict())
    resumed = Run("adamw", METHODS["RigL"], seed=1)
    resumed.model.load_state_dict(saved.model.state_dict())
    resumed.sparsify()
    resumed.optimizer.load_state_dict(copy.deepcopy(old))
    before = snapshot(resumed.model, resumed.optimizer)
    for step in range(8, 10):
        with pytest.raises(ValueError, match="state that was loaded holds no topology"):
            resumed.train(step, step + 1)
    assert same_bits(snapshot(resumed.model, resumed.optimizer), before)
    resumed.sparse.load_state_dict(saved.sparse.state_dict())
    assert same_bits(resumed.train(8, STEPS).bits(), saved.train(8, STEPS).bits())
    saved.optimizer.load_state_dict(old)
    with pytest.warns(SparsityWarning, match="holds no topology, so the training is at step 15"):
        saved.train(15, 16)
    saved.train(16, 20)


@checks("P4")
def test_an_old_checkpoint_goes_with_its_own_handle_in_any_order() -> None:
    saved = sparsified("adamw", METHODS["RigL"]).train(0, 8)
    assert saved.sparse is not None
    states = {
        "M": saved.model.state_dict(),
        "O": without_topology(saved.optimizer.state_dict()),
        "H": saved.sparse.state_dict(),
    }
    whole = copy.deepcopy(states), saved.train(8, STEPS).bits()
    for order in itertools.permutations("MOH"):
        resumed = sparsified("adamw", METHODS["RigL"], seed=1)
        objects = {"M": resumed.model, "O": resumed.optimizer, "H": resumed.sparse}
        for name in order:
            objects[name].load_state_dict(copy.deepcopy(whole[0][name]))
        assert same_bits(resumed.train(8, STEPS).bits(), whole[1])


@checks("P4")
@pytest.mark.parametrize("order", ["SO", "SOM", "SMO", "MSO", "OSM", "OS"])
def test_weights_of_another_topology_are_told(order: str) -> None:
    saved = sparsified("adamw", METHODS["RigL"]).train(0, 8).save()
    other = sparsified("adamw", rigl(seed=5), seed=3).train(0, 8)
    resumed = Run("adamw", METHODS["RigL"], seed=1)
    mixed = io.BytesIO()
    torch.save((other.model.state_dict(), torch.load(io.BytesIO(saved), weights_only=True)[1]), mixed)
    resumed.load(mixed.getvalue(), order)
    with pytest.warns(SparsityWarning, match="weights lie outside their masks: .* of '0.weight'"):
        resumed.train(8, 9)
    resumed.train(9, STEPS)


@checks("P4")
def test_the_best_weights_come_back_without_their_topology() -> None:
    run = sparsified("adamw", METHODS["RigL"]).train(0, 2)
    best, optimizer = copy.deepcopy((run.model.state_dict(), run.optimizer.state_dict()))
    run.train(2, 9)
    assert run.sparse is not None
    run.model.load_state_dict(best)
    outside = {name: int((best[name][~mask] != 0).sum()) for name, mask in quiet_masks(run.sparse).items()}
    assert all(outside.values())
    named = ", ".join(f"{count} of '{name}'" for name, count in outside.items())
    run.model.load_state_dict(best)
    with pytest.warns(SparsityWarning, match=f"weights lie outside their masks: {named}"):
        run.optimizer.state_dict()
    run.optimizer.load_state_dict(optimizer)
    assert run.sparse.step == 2
    assert all(same_bits(value, best[name]) for name, value in run.model.state_dict().items())
    run.train(2, 9)


def quiet_masks(sparse: SparseTraining) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsityWarning)
        return sparse.masks


CHANGES: dict[str, Recipe] = {
    "schedule": RigL(0.7, schedule=UpdateSchedule(end=50, every=5, begin=2)),
    "sparsity": RigL(0.8, schedule=SCHEDULE),
    "seed": RigL(0.7, schedule=SCHEDULE, seed=4),
}


@checks("P2", "P3")
@pytest.mark.parametrize("order", ["SMO", "MOS"])
@pytest.mark.parametrize("change", CHANGES)
def test_another_recipe_is_refused_unless_it_was_changed_on_purpose(change: str, order: str) -> None:
    first = sparsified("adamw", METHODS["RigL"]).train(0, 8)
    resumed = Run("adamw", CHANGES[change], seed=1)
    model, optimizer = first.model.state_dict(), first.optimizer.state_dict()
    resumed.model.load_state_dict(model)
    if order == "SMO":
        resumed.sparsify()
        before = snapshot(resumed.model, resumed.optimizer)
        with pytest.raises(ValueError, match=f"saved under another recipe: {change} was"):
            resumed.optimizer.load_state_dict(optimizer)
    else:
        resumed.optimizer.load_state_dict(optimizer)
        before = snapshot(resumed.model, resumed.optimizer)
        with pytest.raises(ValueError, match=f"saved under another recipe: {change} was"):
            resumed.sparsify()
    assert same_bits(snapshot(resumed.model, resumed.optimizer), before)

    again = Run("adamw", CHANGES[change], seed=1)
    again.model.load_state_dict(model)
    if order == "SMO":
        again.sparsify(changed=[change])
        again.optimizer.load_state_dict(optimizer)
    else:
        again.optimizer.load_state_dict(optimizer)
        again.sparsify(changed=[change])
    assert again.sparse is not None
    assert again.sparse.step == 8
    again.train(8, 9)
    assert again.sparse.table.total_active == sum(again.sparse.plan.active)
    again.train(9, STEPS)


@checks("P3")
def test_changed_must_be_a_list_of_fields() -> None:
    run = Run("adamw", METHODS["RigL"])
    before = snapshot(run.model, run.optimizer)
    with pytest.raises(TypeError, match="changed is 'schedule'"):
        run.sparsify(changed="schedule")
    with pytest.raises(ValueError, match="changed names 'structure'"):
        run.sparsify(changed=["structure"])
    assert same_bits(snapshot(run.model, run.optimizer), before)


@checks("P3")
@pytest.mark.parametrize("order", ["SO", "OS"])
def test_a_topology_of_other_layers_is_refused(order: str) -> None:
    saved = sparsified("momentum", METHODS["RigL"]).train(0, 3).optimizer.state_dict()
    model = mlp()
    optimizer = OPTIMIZERS["momentum"](model.parameters())

    def load_and_sparsify() -> None:
        for name in order:
            if name == "S":
                sparsify(model, optimizer, METHODS["RigL"], exclude=["2.*"])
            else:
                optimizer.load_state_dict(copy.deepcopy(saved))

    with pytest.raises(ValueError, match="topology of other layers"):
        load_and_sparsify()
    if order == "OS":
        assert isinstance(optimizer.state[model[0].weight]["sparse_mask"], Tensor)  # nothing was changed
        assert sparsify(model, optimizer, METHODS["RigL"]).step == 3


@checks("P2")
def test_tied_groups_and_models_with_more_parameters() -> None:
    """Numbers in a saved state follow the optimizer's groups, not the model."""

    def make(seed: int) -> tuple[nn.Module, Optimizer]:
        model = nn.Sequential(nn.LayerNorm(12), mlp(seed=seed))
        params = list(model.parameters())
        groups = [{"params": params[3:], "lr": 0.02}, {"params": params[:3]}]
        return model, torch.optim.Adam(groups, 0.01)

    model, optimizer = make(0)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(8):
        train_step(model, optimizer, batch(step))
    other, other_optimizer = make(1)
    resumed = sparsify(other, other_optimizer, rigl())
    other.load_state_dict(model.state_dict())
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(8, STEPS):
        train_step(model, optimizer, batch(step))
        train_step(other, other_optimizer, batch(step))
    assert same_bits(snapshot(model, optimizer), snapshot(other, other_optimizer))
    assert same_bits(sparse.state_dict(), resumed.state_dict())


@checks("P2")
def test_a_plain_training_can_load_what_a_sparse_one_saved() -> None:
    run = sparsified("adamw", METHODS["RigL"]).train(0, 8)
    plain = Run("adamw", METHODS["RigL"], seed=1).load(run.save(), "MO")
    plain.train(8, 12)
    assert run.sparse is not None
    run.sparse.remove()
    assert all(not name.startswith("sparse_") for own in run.optimizer.state_dict()["state"].values() for name in own)


class Layout(NamedTuple):
    """How `torch.distributed.checkpoint` saves."""

    full_state_dict: bool = False
    cpu_offload: bool = False
    flatten_optimizer_state_dict: bool = False


LAYOUTS = [Layout(), Layout(True), Layout(True, True), Layout(flatten_optimizer_state_dict=True)]
ONE_PROCESS = pytest.mark.filterwarnings(
    "ignore:torch.distributed is (disabled, )?unavailable or uninitialized:UserWarning",
    "ignore:TypedStorage is deprecated:UserWarning",
)


@ONE_PROCESS
@checks("P2")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["adamw", "momentum", "sgd"])
@pytest.mark.parametrize("method", ["RigL", "DNW"])
def test_distributed_checkpoints(tmp_path: Path, kind: str, method: str, layout: Layout) -> None:
    whole = sparsified(kind, METHODS[method]).train(0, STEPS).bits()
    for stop in (3, 8):
        saved = sparsified(kind, METHODS[method]).train(0, stop)
        saved.optimizer.zero_grad()
        options = StateDictOptions(**layout._asdict())
        model, optimizer = get_state_dict(saved.model, saved.optimizer, options=options)
        dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=tmp_path / str(stop))
        assert same_bits(saved.train(stop, STEPS).bits(), whole)  # saving has changed nothing
        resumed = sparsified(kind, METHODS[method], seed=1)
        model, optimizer = get_state_dict(resumed.model, resumed.optimizer, options=options)
        assert resumed.sparse is not None
        assert resumed.sparse.step == 0
        state = {"model": model, "optimizer": optimizer}
        dcp.load(state, checkpoint_id=tmp_path / str(stop))
        set_state_dict(
            resumed.model,
            resumed.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=StateDictOptions(**layout._replace(cpu_offload=False)._asdict()),
        )
        assert resumed.sparse.step == stop
        assert same_bits(resumed.train(stop, STEPS).bits(), whole)


@ONE_PROCESS
@checks("P2", "R1")
def test_the_empty_step_of_distributed_checkpoints_is_no_step() -> None:
    run = sparsified("adamw", RigL(0.7, schedule=UpdateSchedule(end=25, every=5)))
    masks = run.sparse.masks
    get_state_dict(run.model, run.optimizer)
    assert run.sparse is not None
    assert run.sparse.step == 0
    assert same_bits(run.sparse.masks, masks)
    run.train(0, 3)
    assert all(isinstance(value, Tensor) for own in run.optimizer.state.values() for value in own.values())


RECIPES: dict[str, Recipe] = {
    "n of m": RigL(structure=NM(2, 4), schedule=SCHEDULE),
    "blocks": rigl(0.5, structure=Blocks(2)),
    "per layer": RigL(distribution=PerLayer({"0.*": 0.5, "2.*": 0.25}), schedule=SCHEDULE),
    "pinned": rigl(0.5, layer_sparsity={"0.*": 0.9}, drop_fraction=Constant(0.2)),
    "the first layer is dense": rigl(0.5, dense=["0.*"]),
    "all layers are dense, as in the first round of a lottery": rigl(0.0, dense=["0.*"]),
    "nothing is pruned": rigl(0.0),
    "a large seed": rigl(0.5, seed=2**31 - 1),
}


@checks("P2")
@pytest.mark.parametrize("kind", RECIPES)
def test_every_recipe_is_the_same_after_the_journey(kind: str) -> None:
    first = sparsified("adamw", RECIPES[kind]).train(0, 3)
    for order in ("SMO", "MOS"):
        resumed = Run("adamw", RECIPES[kind], seed=1).load(first.save(), order)
        assert same_bits(resumed.bits(), first.bits())


@checks("P2")
def test_a_header_of_any_length_travels() -> None:
    names = {f"{i}.weight": 0.5 for i in range(0, 400, 2)}
    model = nn.Sequential(*(nn.Linear(2, 2) if i % 2 == 0 else nn.ReLU() for i in range(400)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, RigL(distribution=PerLayer(names), schedule=SCHEDULE))
    saved = optimizer.state_dict()
    assert saved["state"][0]["sparse_header"].numel() == 2 * 4096
    optimizer.load_state_dict(saved)
    assert sparse.step == 0
