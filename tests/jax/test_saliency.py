"""GraSP and SynFlow scores, compared with finite differences and products by hand, and as initial topologies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rigl_backends.jax import grasp_scores, masks, sparsify, synflow_scores
from rigl_core import GraSP, Layer, SynFlow
from rigl_core.testing.checks import checks
from tests.jax.helpers import by_name, make_params

RNG = np.random.default_rng(0)
INPUTS = jnp.array(RNG.normal(size=(16, 12)), jnp.float32)
LABELS = jnp.array(RNG.integers(0, 6, 16))


def apply(params: Any, x: Any) -> Any:
    return jnp.tanh(x @ params["fc1"]["kernel"] + params["fc1"]["bias"]) @ params["fc2"]["kernel"]


def loss(params: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(apply(params, INPUTS), LABELS).mean()


METHODS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "GraSP": (GraSP(0.6), lambda params, **options: grasp_scores(loss, params, **options)),
    "SynFlow": (
        SynFlow(0.6),
        lambda params, **options: synflow_scores(apply, params, INPUTS[:1], sparsity=0.6, rounds=4, **options),
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_highest_scores_of_all_layers_are_the_topology(method: str) -> None:
    recipe, scores_of = METHODS[method]
    params = make_params()
    before = by_name(params)
    scores = scores_of(params)
    opt_state = sparsify(optax.sgd(0.1), recipe, scores=scores).init(params)
    chosen = masks(opt_state, params)
    assert list(scores) == list(chosen) == ["fc1/kernel", "fc2/kernel"]
    flat = np.concatenate([np.asarray(scores[name]).reshape(-1) for name in chosen])
    active = np.concatenate([np.asarray(mask).reshape(-1) for mask in chosen.values()])
    assert active.sum() == round(0.4 * flat.size)
    assert flat[active].min() >= flat[~active].max()
    for name, weight in by_name(params).items():
        np.testing.assert_array_equal(weight, before[name])


@pytest.mark.parametrize("method", METHODS)
def test_layers_are_those_of_sparsify(method: str) -> None:
    recipe, scores_of = METHODS[method]
    params = make_params()
    options: list[dict[str, Any]] = [
        {"include": ["fc1/bias"], "exclude": ["fc2/*"]},
        {"layers": [Layer("fc2/kernel", (10, 6))]},
        {"axes": {"fc1/*": ((0,), (1,))}},
    ]
    for own in options:
        scores = scores_of(params, **own)
        opt_state = sparsify(optax.sgd(0.1), recipe, scores=scores, **own).init(params)
        assert set(scores) == set(masks(opt_state, params))


def test_grasp_of_a_quadratic_loss_is_exact() -> None:
    root = RNG.normal(size=(6, 6))
    hessian = root @ root.T
    weight = RNG.normal(size=(2, 3))
    with jax.enable_x64(True):

        def quadratic(params: Any) -> Any:
            flat = params["w"].reshape(-1)
            return flat @ hessian @ flat / 2 + params["b"] ** 2

        scores = grasp_scores(quadratic, {"w": jnp.array(weight), "b": jnp.ones(())})
    expected = weight.reshape(-1) * (hessian @ hessian @ weight.reshape(-1))
    np.testing.assert_allclose(scores["w"].reshape(-1), expected)


def test_grasp_tells_how_the_squared_gradient_changes() -> None:
    """To first order, removing a weight changes the squared norm of the layers' gradient by -2 * score."""
    with jax.enable_x64(True):
        params = make_params(jnp.float64)

        def squared_norm(params: Any) -> float:
            gradients = jax.grad(loss)(params)
            return float(sum((gradients[layer]["kernel"] ** 2).sum() for layer in ("fc1", "fc2")))

        scores = grasp_scores(loss, params)
        for layer, place in (("fc1", (3, 5)), ("fc2", (2, 1)), ("fc2", (0, 0))):
            norms, share = [], 1e-4
            for sign in (-1, 1):
                kernel = params[layer]["kernel"].at[place].multiply(1 + sign * share)
                norms.append(squared_norm({**params, layer: {**params[layer], "kernel": kernel}}))
            change = (norms[0] - norms[1]) / (2 * share)
            assert -2 * float(scores[f"{layer}/kernel"][place]) == pytest.approx(change, rel=1e-5, abs=1e-12)


def test_synflow_of_a_linear_network_by_hand() -> None:
    """One round: a score is the flow into the weight, times the weight, times the flow from its output."""
    params = {name: {"kernel": layer["kernel"], "bias": jnp.zeros(())} for name, layer in make_params().items()}
    first, second = (np.abs(np.asarray(params[name]["kernel"], np.float64)) for name in ("fc1", "fc2"))
    scores = synflow_scores(
        lambda p, x: x @ p["fc1"]["kernel"] @ p["fc2"]["kernel"], params, INPUTS[:1], sparsity=0, rounds=1
    )
    expected = {"fc1/kernel": first * second.sum(1), "fc2/kernel": first.sum(0)[:, None] * second}
    largest = max(values.max() for values in expected.values())
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values / largest, rtol=1e-12)


def test_synflow_prunes_in_rounds() -> None:
    """The scores are those of the paper's algorithm, here in NumPy. Weights pruned in some round have the score -1."""
    params = make_params()
    weights = [np.abs(np.asarray(params[name]["kernel"], np.float64)) for name in ("fc1", "fc2")]
    kept = [np.ones_like(weight) for weight in weights]
    for number in range(1, 6):
        first, second = (weight * mask for weight, mask in zip(weights, kept, strict=True))
        flows = [first * second.sum(1), first.sum(0)[:, None] * second]
        flat = np.concatenate([np.where(mask, flow, -1).reshape(-1) for flow, mask in zip(flows, kept, strict=True)])
        threshold = np.sort(flat)[::-1][round(0.1 ** (number / 5) * flat.size) - 1]
        kept = [mask * (flow >= threshold) for flow, mask in zip(flows, kept, strict=True)]
    shape = jax.ShapeDtypeStruct((1, 12), jnp.float32)
    scores = synflow_scores(
        lambda p, x: x @ p["fc1"]["kernel"] @ p["fc2"]["kernel"], params, shape, sparsity=0.9, rounds=5
    )
    for mask, values in zip(kept, scores.values(), strict=True):
        np.testing.assert_array_equal(values >= 0, mask == 1)
        assert set(values[mask == 0].tolist()) <= {-1.0}


class ConvNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_models_of_flax_and_equinox(dtype: Any) -> None:
    images = jnp.array(RNG.normal(size=(4, 6, 6, 2)), dtype)
    net = ConvNet()
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), net.init(jax.random.key(0), images))
    statistics = variables["batch_stats"]

    def run(params: Any, x: Any) -> Any:
        return net.apply({"params": params, "batch_stats": statistics}, x)

    scores = synflow_scores(run, variables["params"], images[:1], sparsity=0.5, rounds=3)
    assert {name: values.shape for name, values in scores.items()} == {
        "Conv_0/kernel": (3, 3, 2, 4),
        "Dense_0/kernel": (4, 3),
    }
    assert grasp_scores(lambda params: (run(params, images) ** 2).mean(), variables["params"])["Conv_0/kernel"].any()

    model = eqx.nn.MLP(5, 2, 6, 1, key=jax.random.key(0))
    assert list(grasp_scores(lambda model: jax.vmap(model)(jnp.ones((3, 5))).sum() ** 2, model)) == [
        "layers/0/weight",
        "layers/1/weight",
    ]
    assert list(synflow_scores(lambda model, x: jax.vmap(model)(x), model, jnp.ones((1, 5)), sparsity=0.5)) == [
        "layers/0/weight",
        "layers/1/weight",
    ]


@checks("P3")
def test_mistakes_are_refused_by_name() -> None:
    params = make_params()
    with pytest.raises(ValueError, match="sparsity is 1"):
        synflow_scores(apply, params, INPUTS, sparsity=1)
    with pytest.raises(ValueError, match="rounds is 0: it must be at least 1"):
        synflow_scores(apply, params, INPUTS, sparsity=0.5, rounds=0)
    with pytest.raises(ValueError, match="params has a flow that is no finite number"):
        synflow_scores(lambda params, x: apply(params, x) * 1e308, params, INPUTS, sparsity=0.5)
    with pytest.raises(ValueError, match="include holds the pattern 'nope'"):
        grasp_scores(loss, params, include=["nope"])
    with pytest.raises(ValueError, match="layers already says what to sparsify"):
        grasp_scores(loss, params, layers=[Layer("fc1/kernel", (12, 10))], exclude=["fc2/*"])
    with pytest.raises(ValueError, match="layers is empty"):
        grasp_scores(loss, params, exclude=["*"])
