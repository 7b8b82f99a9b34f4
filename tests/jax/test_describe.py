"""`describe`: its positions, read from the trace, are those of `rigl_core.specs` for published networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from rigl_backends.jax import choose_layers, describe
from rigl_core import Network, specs
from rigl_core.testing.checks import checks
from tests.architectures import BATCH, EXPECTED, TOKENS, shapes_and_positions, summary

KEY = jax.random.key(0)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(6)(nn.relu(nn.Dense(16)(x)))


class ConvNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), strides=2)(x))
        x = nn.Conv(8, (3, 3), padding="VALID", feature_group_count=8, name="depthwise")(x)
        x = nn.Conv(16, (3, 3), padding="VALID", feature_group_count=4)(nn.relu(x))
        x = nn.ConvTranspose(6, (3, 3), strides=(2, 2))(x)
        return nn.Dense(3)(x.mean((1, 2)))


class LastToken(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(2)(nn.RNN(nn.GRUCell(6))(x)[:, -1])


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(2)(nn.MultiHeadDotProductAttention(2)(x))


class Tied(nn.Module):
    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        embedding = nn.Embed(11, 8)
        return embedding.attend(nn.Dense(8)(embedding(tokens)))


ARCHITECTURES: dict[str, tuple[nn.Module, Any]] = {
    "mlp": (MLP(), jax.ShapeDtypeStruct((BATCH, 12), jnp.float32)),
    "convnet": (ConvNet(), jax.ShapeDtypeStruct((BATCH, 32, 32, 3), jnp.float32)),
    "recurrent": (LastToken(), jax.ShapeDtypeStruct((BATCH, TOKENS, 8), jnp.float32)),
    "attention": (Attention(), jax.ShapeDtypeStruct((BATCH, TOKENS, 8), jnp.float32)),
    "tied": (Tied(), jax.ShapeDtypeStruct((BATCH, TOKENS), jnp.int32)),
}


def describe_flax(model: nn.Module, inputs: Any, **options: Any) -> Network:
    """The network of a flax model, from shapes alone: nothing is computed."""
    variables = dict(jax.eval_shape(model.init, KEY, inputs))
    params = variables.pop("params")

    def apply(params: Any, others: Any, inputs: Any) -> Any:
        return model.apply({"params": params, **others}, inputs)

    return describe(apply, params, variables, inputs, **options)


def by_name(network: Network) -> dict[str, float]:
    return dict(network.positions)


@pytest.mark.parametrize("name", EXPECTED)
def test_architectures(name: str) -> None:
    assert summary(describe_flax(*ARCHITECTURES[name], examples=BATCH)) == EXPECTED[name]


def test_arrays_and_shapes_give_the_same_in_and_out_of_jit() -> None:
    model, shape = ARCHITECTURES["mlp"]
    inputs = jnp.zeros(shape.shape)
    variables = model.init(KEY, inputs)
    for apply in (model.apply, jax.jit(model.apply), jax.checkpoint(model.apply)):
        network = describe(lambda params, x: apply({"params": params}, x), variables["params"], inputs, examples=BATCH)  # noqa: B023
        assert network == describe_flax(model, shape, examples=BATCH)


def test_equinox_modules() -> None:
    keys = jax.random.split(KEY, 3)
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 8, 3, stride=2, padding=1, key=keys[0]),
            eqx.nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2, key=keys[1]),
            eqx.nn.Lambda(lambda x: x.mean((1, 2))),
            eqx.nn.Linear(6, 4, key=keys[2]),
        ]
    )
    network = describe(lambda model, x: jax.vmap(model)(x), model, jnp.zeros((BATCH, 3, 32, 32)), examples=BATCH)
    assert by_name(network) == {"layers/0/weight": 256, "layers/1/weight": 256, "layers/3/weight": 1}
    assert network[1].groups == 2


@pytest.mark.parametrize("cell", [eqx.nn.GRUCell, eqx.nn.LSTMCell])
def test_equinox_cells_in_a_scan(cell: Any) -> None:
    model = cell(8, 6, key=KEY)
    start = (jnp.zeros(6), jnp.zeros(6)) if cell is eqx.nn.LSTMCell else jnp.zeros(6)

    def apply(model: Any, tokens: Any) -> Any:
        return jax.lax.scan(lambda state, token: (model(token, state), None), start, tokens)[0]

    network = describe(apply, model, jnp.zeros((TOKENS, 8)))
    assert by_name(network) == {"weight_ih": TOKENS, "weight_hh": TOKENS}


def test_nnx_modules() -> None:
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
            self.head = nnx.Linear(4, 5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.head(self.norm(self.conv(x)).mean((1, 2)))

    graph, params, others = nnx.split(Model(nnx.Rngs(0)), nnx.Param, ...)
    network = describe(
        lambda params, x: nnx.merge(graph, params, others)(x), params, jnp.zeros((BATCH, 8, 8, 3)), examples=BATCH
    )
    assert by_name(network) == {"conv/kernel": 64, "head/kernel": 1}


@pytest.mark.parametrize("cell", [nn.OptimizedLSTMCell, nn.LSTMCell, nn.SimpleCell])
def test_cells_that_join_their_kernels_use_each_at_every_step(cell: Any) -> None:
    inputs = jax.ShapeDtypeStruct((BATCH, TOKENS, 8), jnp.float32)
    assert set(describe_flax(nn.RNN(cell(6)), inputs, examples=BATCH).positions.values()) == {TOKENS}


def test_layers_stacked_under_a_scan_are_used_once_each() -> None:
    def apply(params: Any, x: Any) -> Any:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["weight"])[0]

    network = describe(apply, {"weight": jnp.zeros((6, 4, 4))}, jnp.zeros((BATCH, 4)), examples=BATCH)
    assert by_name(network) == {"weight": 1}


def test_whatever_is_made_of_a_weight_counts_for_it() -> None:
    mask = jnp.ones((8, 6))

    def apply(params: Any, x: Any) -> Any:
        masked = (params["masked"] * mask).astype(jnp.bfloat16)
        normed = params["normed"] * params["gain"] / jnp.linalg.norm(params["normed"], axis=0)
        asked = params["queries"] @ params["normed"]
        cond = jax.lax.cond(x[0, 0] > 0, lambda: x @ params["rare"], lambda: jnp.zeros((len(x), 3)))
        return (x @ masked).sum() + (x @ normed).sum() + asked.sum() + cond.sum()

    shapes = {"masked": (8, 6), "normed": (8, 6), "gain": (1, 6), "queries": (2, 8), "rare": (8, 3)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    network = describe(apply, params, jnp.zeros((TOKENS, 8)), include=[], exclude=["gain", "queries"])
    assert by_name(network) == {"masked": 5, "normed": 5 + 2, "rare": 5, "gain": 0, "queries": 0}


@jax.custom_vjp
def custom(x: Any, w: Any) -> Any:
    return x @ w


custom.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))


def repeated(w: Any, x: Any) -> Any:
    return jax.lax.fori_loop(0, 3, lambda _, x: x @ w, x)


LOOPS: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "fori_loop": (repeated, 3),
    "nested": (lambda w, x: jax.lax.scan(lambda x, _: (repeated(w, x), None), x, length=4)[0], 12),
    "map": (lambda w, x: jax.lax.map(lambda row: row @ w, x), 1),
    "jitted": (lambda w, x: jax.jit(lambda x: jax.nn.gelu(x @ w))(x), 1),
    "custom": (lambda w, x: custom(x, w), 1),
    "vmapped": (lambda w, x: jax.vmap(lambda row: custom(row[None], w))(x), 1),
}


@pytest.mark.parametrize("name", LOOPS)
def test_calls_and_loops_of_known_length(name: str) -> None:
    body, times = LOOPS[name]
    params, inputs = {"w": jnp.zeros((4, 4))}, jnp.zeros((BATCH, 4))
    network = describe(lambda params, x: body(params["w"], x), params, inputs, examples=BATCH)
    assert by_name(network) == {"w": times}


@checks("P3")
def test_a_loop_of_unknown_length_is_refused_by_name() -> None:
    def apply(params: Any, x: Any) -> Any:
        return jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: x @ params["w"], x)

    with pytest.raises(ValueError, match="apply multiplies with 'w' in a while loop"):
        describe(apply, {"w": jnp.zeros((4, 4))}, jnp.zeros((1, 4)))


@checks("P3")
def test_mistakes_are_refused_by_name() -> None:
    def apply(params: Any, x: Any) -> Any:
        return x @ params["w"]

    with pytest.raises(ValueError, match="examples is 0: it must be at least 1"):
        describe(apply, {"w": jnp.zeros((4, 4))}, jnp.zeros((1, 4)), examples=0)
    with pytest.raises(ValueError, match="include holds the pattern 'v', which matches no"):
        describe(apply, {"w": jnp.zeros((4, 4))}, jnp.zeros((1, 4)), include=["v"])


def test_the_layers_are_those_that_sparsify_chooses() -> None:
    model, inputs = ARCHITECTURES["convnet"]
    params = jax.eval_shape(model.init, KEY, inputs)["params"]
    choice: dict[str, Any] = {
        "include": ["depthwise/kernel"],
        "exclude": ["Dense*"],
        "axes": {"Conv_0/*": ((3,), (2,))},
    }
    network = describe_flax(model, inputs, examples=BATCH, **choice)
    assert network.layers == tuple(choose_layers(params, **choice))
    assert summary(network) == ({256: 216, 196: 72, 144: 9 * 2 * 16 + 9 * 16 * 6}, {1: 18})


class WideResNet(nn.Module):
    """WRN-22-2: in each block the activation comes before the kernel."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(16, (3, 3), use_bias=False)(x)
        for stage, width in enumerate((32, 64, 128)):
            for block in range(3):
                stride = 2 if stage and not block else 1
                y = nn.relu(nn.BatchNorm(use_running_average=True)(x))
                skip = nn.Conv(width, (1, 1), stride, use_bias=False)(y) if not block else x
                y = nn.Conv(width, (3, 3), stride, use_bias=False)(y)
                x = skip + nn.Conv(width, (3, 3), use_bias=False)(nn.relu(y))
        return nn.Dense(10)(x.mean((1, 2)))


def test_wide_resnet_is_the_published_one() -> None:
    network = describe_flax(WideResNet(), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    assert shapes_and_positions(network) == shapes_and_positions(specs.wrn_22_2())
