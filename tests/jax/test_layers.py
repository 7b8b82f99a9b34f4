"""The choice of layers, by the conventions of flax, equinox and plain dicts."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

from rigl_backends.jax import choose_layers, sparsify
from rigl_core import NM, ErdosRenyi, Layer, RigL, SRigL, Static, UpdateSchedule

KEY = jax.random.key(0)


def axes_by_name(params: Any, **options: Any) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    return {layer.name: (layer.in_axes, layer.out_axes) for layer in choose_layers(params, **options)}


class Linen(linen.Module):
    @linen.compact
    def __call__(self, tokens: jax.Array, image: jax.Array) -> jax.Array:
        x = linen.Embed(11, 8)(tokens)
        x = linen.MultiHeadDotProductAttention(num_heads=2)(x, x)
        x = linen.LayerNorm()(linen.DenseGeneral((2, 3))(x)).reshape(1, -1)
        y = linen.Conv(6, (3, 3))(image)
        y = linen.Conv(6, (3, 3), feature_group_count=6, name="depthwise")(y)
        y = linen.ConvTranspose(4, (2, 2))(y).reshape(1, -1)
        return linen.Dense(3)(jnp.concatenate([x, y], axis=1) * self.param("table", lambda _: jnp.ones((1, 1))))


def linen_params() -> Any:
    shapes = jax.eval_shape(Linen().init, KEY, jnp.zeros((1, 5), int), jnp.zeros((1, 6, 6, 3)))
    return shapes["params"]


def test_flax_linen() -> None:
    attention = "MultiHeadDotProductAttention_0"
    assert (
        axes_by_name(linen_params())
        == {
            "Conv_0/kernel": ((2,), (3,)),
            "ConvTranspose_0/kernel": ((2,), (3,)),
            "DenseGeneral_0/kernel": ((), ()),
            "Dense_0/kernel": ((0,), (1,)),
            **{f"{attention}/{role}/kernel": ((0,), (1, 2)) for role in ("key", "query", "value")},
            f"{attention}/out/kernel": ((0, 1), (2,)),
        }
        | {}
    )


def test_axes_that_no_convention_tells_are_given_by_pattern() -> None:
    given = axes_by_name(linen_params(), axes={"DenseGeneral*": ((0,), (1, 2)), "*Conv_0*": ((0, 2), (3,))})
    assert given["DenseGeneral_0/kernel"] == ((0,), (1, 2))
    assert given["Conv_0/kernel"] == ((0, 2), (3,))
    recipe = Static(0.5, distribution=ErdosRenyi())
    with pytest.raises(ValueError, match="in_axes of layer 'DenseGeneral_0/kernel' is unknown"):
        jax.eval_shape(sparsify_nothing(recipe), linen_params())
    jax.eval_shape(sparsify_nothing(recipe, axes={"DenseGeneral*": ((0,), (1, 2))}), linen_params())


def sparsify_nothing(recipe: Any, **options: Any) -> Any:
    import optax

    return sparsify(optax.identity(), recipe, **options).init


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(11, 8, rngs=rngs)
        self.conv = nnx.Conv(3, 6, (3,), rngs=rngs)
        self.depthwise = nnx.Conv(6, 6, (3,), feature_group_count=6, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(8, 8, rngs=rngs) for _ in range(2)])


def test_flax_nnx() -> None:
    """The state, its plain arrays and the module itself have the same layers under the same names."""
    model = nnx.eval_shape(lambda: Nnx(nnx.Rngs(0)))
    expected = {
        **{f"attention/{role}/kernel": ((0,), (1, 2)) for role in ("key", "query", "value")},
        "attention/out/kernel": ((0, 1), (2,)),
        "blocks/0/kernel": ((0,), (1,)),
        "blocks/1/kernel": ((0,), (1,)),
        "conv/kernel": ((1,), (2,)),
    }
    state = nnx.state(model, nnx.Param)
    for params in (state, nnx.to_pure_dict(state), model):
        assert axes_by_name(params) == expected


class Equinox(eqx.Module):
    embedding: eqx.nn.Embedding
    conv: eqx.nn.Conv2d
    depthwise: eqx.nn.Conv2d
    grouped: eqx.nn.ConvTranspose1d
    cell: eqx.nn.GRUCell
    norm: eqx.nn.LayerNorm
    head: eqx.nn.MLP
    weight: jax.Array

    def __init__(self) -> None:
        self.embedding = eqx.nn.Embedding(11, 8, key=KEY)
        self.conv = eqx.nn.Conv2d(3, 6, 3, key=KEY)
        self.depthwise = eqx.nn.Conv2d(6, 12, 3, groups=6, key=KEY)
        self.grouped = eqx.nn.ConvTranspose1d(4, 6, 3, groups=2, key=KEY)
        self.cell = eqx.nn.GRUCell(3, 4, key=KEY)
        self.norm = eqx.nn.LayerNorm((4, 5))
        self.head = eqx.nn.MLP(4, 2, 8, 1, key=KEY)
        self.weight = jnp.ones((3, 4))


def test_equinox() -> None:
    """Equinox modules say what they are, also after a filter. The user's own weight has unknown axes."""
    out_in = ((1,), (0,))
    expected = {
        "conv/weight": out_in,
        "grouped/weight": out_in,
        "cell/weight_ih": out_in,
        "cell/weight_hh": out_in,
        "head/layers/0/weight": out_in,
        "head/layers/1/weight": out_in,
        "weight": ((), ()),
    }
    model = eqx.filter_eval_shape(Equinox)
    assert axes_by_name(model) == axes_by_name(eqx.filter(model, lambda leaf: hasattr(leaf, "dtype"))) == expected
    by_name = {layer.name: layer for layer in choose_layers(model, include=["depthwise/weight", "embedding/*"])}
    assert by_name["depthwise/weight"].depthwise
    assert by_name["grouped/weight"].groups == 2
    assert by_name["embedding/weight"].shape == (11, 8)


def stack(make: Any) -> Any:
    return eqx.filter(eqx.filter_vmap(make)(jax.random.split(KEY, 8)), eqx.is_inexact_array)


ATTENTION = ("query", "key", "value", "out")
STACKS: dict[str, Any] = {
    "equinox Linear": lambda: stack(lambda key: eqx.nn.Linear(16, 32, key=key)),
    "equinox Conv": lambda: stack(lambda key: eqx.nn.Conv1d(16, 32, 4, key=key)),
    "equinox GRUCell": lambda: stack(lambda key: eqx.nn.GRUCell(16, 32, key=key)),
    "scanned attention of Dense": lambda: {name: {"kernel": jnp.ones((8, 16, 16))} for name in ATTENTION},
    "all of one size": lambda: {name: {"kernel": jnp.ones((16, 16, 16))} for name in ATTENTION},
    "scanned Dense in a block": lambda: {"ConvBlock_0": {"Dense_0": {"kernel": jnp.ones((8, 16, 32))}}},
    "scanned Conv": lambda: {"Conv_0": {"kernel": jnp.ones((8, 4, 3, 3, 16, 32))}},
}


@pytest.mark.parametrize("name", STACKS)
def test_axes_of_stacked_layers_are_not_guessed(name: str) -> None:
    """What needs them refuses the layers and names ``axes``."""
    params = STACKS[name]()
    for layer in choose_layers(params):
        assert (layer.in_axes, layer.out_axes) == ((), ()), layer
    structured = SRigL(0.5, schedule=UpdateSchedule(end=9))
    two_of_four = RigL(schedule=UpdateSchedule(end=9), structure=NM(2, 4))
    for recipe in (Static(0.5, distribution=ErdosRenyi()), structured, two_of_four):
        with pytest.raises(ValueError, match=r"(in|out)_axes of layer '.*' is unknown.*\(axes="):
            jax.eval_shape(sparsify_nothing(recipe), params)


def test_a_stack_with_given_axes() -> None:
    params = STACKS["equinox Linear"]()
    recipe = RigL(schedule=UpdateSchedule(end=9), structure=NM(2, 4))
    mask = sparsify_nothing(recipe, axes={"weight": ((2,), (1,))})(params).masks["weight"]
    assert (mask.reshape(8, 32, 4, 4).sum(-1) == 2).all()


def test_plain_dicts() -> None:
    """Arrays with two or more axes are layers with unknown axes, unless their name is bias, scale or embedding."""
    params = {
        "b": {"w": jnp.ones((3, 4)), "bias": jnp.ones((4, 1))},
        "a": [jnp.ones((2, 3, 4)), jnp.ones(4)],
        "embedding": jnp.ones((9, 4)),
        "counts": jnp.ones((3, 3), int),
        "none": None,
    }
    assert axes_by_name(params) == {"a/0": ((), ()), "b/w": ((), ())}
    assert list(axes_by_name(params, include=["embedding", "a/1"], exclude=["b/*"])) == ["a/0", "a/1", "embedding"]
    assert list(axes_by_name(jnp.ones((3, 4)))) == ["params"]


def test_named_kernels_stand_for_the_others() -> None:
    """If there are arrays with a library's names, other arrays of two axes are layers only if they are included."""
    params = {"dense": {"kernel": jnp.ones((3, 4))}, "position": jnp.ones((5, 6))}
    assert list(axes_by_name(params)) == ["dense/kernel"]
    assert list(axes_by_name(params, include=["position"])) == ["dense/kernel", "position"]


def test_a_single_input_channel_may_be_depthwise() -> None:
    params = {"first_conv": {"kernel": jnp.ones((3, 3, 1, 8))}, "dense": {"kernel": jnp.ones((8, 2))}}
    assert list(axes_by_name(params)) == ["dense/kernel"]
    assert axes_by_name(params, include=["first*"])["first_conv/kernel"] == ((2,), (3,))


def test_errors_name_what_was_wrong() -> None:
    params = {"dense": {"kernel": jnp.ones((3, 4))}, "counts": jnp.ones((3, 3), int)}
    with pytest.raises(ValueError, match=r"include holds the pattern 'nope', which matches no layer.*'dense/kernel'"):
        choose_layers(params, include=["nope"])
    with pytest.raises(ValueError, match="axes holds the pattern 'nope', which matches no layer"):
        choose_layers(params, axes={"nope": ((0,), (1,))})
    with pytest.raises(TypeError, match="exclude is the string 'dense'"):
        choose_layers(params, exclude="dense")
    with pytest.raises(ValueError, match="layer 'counts' has the dtype int32: only float16, bfloat16"):
        choose_layers(params, include=["counts"])
    with pytest.raises(ValueError, match="two leaves that are spelled 'a/b'"):
        choose_layers({"a": {"b": jnp.ones((2, 2))}, "a/b": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match=r"layers names 'dense/kernel' of shape \(4, 3\): params has no such array"):
        sparsify_nothing(Static(0.5), layers=[Layer("dense/kernel", (4, 3))])(params)
    with pytest.raises(ValueError, match="layers already says what to sparsify: leave out include"):
        sparsify_nothing(Static(0.5), layers=[Layer("dense/kernel", (3, 4))], include=["counts"])
