"""Truly sparse convolutions in JAX: against XLA's, whole trainings, checkpoints, and what is refused."""

from __future__ import annotations

import functools
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array, lax

import rigl_backends.numpy
from rigl_backends.jax import (
    ActiveWeight,
    apply_masks,
    begin,
    dense,
    masks,
    plan,
    resume,
    sparse_conv,
    sparse_linear,
    sparsify,
    table,
)
from rigl_backends.jax.storage import names_of_active
from rigl_backends.jax.trees import named_leaves, spec
from rigl_core import Constant, Layer, RigL, SparsityWarning, Static, Uniform, UpdateSchedule
from rigl_core.sparse import numpy_convolutions, numpy_kernels
from rigl_core.testing.checks import checks

FREE = Uniform(first_dense=False)
RIGL = RigL(0.8, schedule=UpdateSchedule(end=40, every=3), drop_fraction=Constant(0.4), distribution=FREE)
ACTIVE: Any = {"*": "active"}
SHAPES = {
    "conv_stem": (5, 5, 3, 16),
    "conv_deep": (3, 3, 16, 24),
    "conv_shortcut": (1, 1, 16, 24),
    "conv_groups": (1, 3, 6, 24),
    "head": (24, 5),
}
Carry = tuple[Any, Any]


def make_params() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        name: {"kernel": jnp.array(rng.normal(size=shape) / np.prod(shape[:-1]) ** 0.5, jnp.float32)}
        for name, shape in SHAPES.items()
    }


def loss_of(params: Any, batch: Any) -> Array:
    """Of a network with convolutions of all kinds, a shortcut and a checkpoint."""
    x, labels = batch
    own = {name: layer["kernel"] for name, layer in params.items()}
    x = jax.nn.relu(sparse_conv(own["conv_stem"], x, padding="SAME"))
    deep = jax.checkpoint(functools.partial(sparse_conv, stride=2, padding="SAME"))
    x = jax.nn.relu(deep(own["conv_deep"], x) + sparse_conv(own["conv_shortcut"], x, stride=2, padding=0))
    x = sparse_conv(own["conv_groups"], x, padding=(0, 2), dilation=2, groups=4)
    logits = sparse_linear(own["head"], jnp.max(x, (1, 2)))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batches(steps: range) -> tuple[Array, Array]:
    rngs = [np.random.default_rng(step) for step in steps]
    x = np.stack([rng.normal(size=(6, 8, 9, 3)) for rng in rngs]).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(np.stack([rng.integers(0, 5, 6) for rng in rngs]))


@functools.cache
def trainer(is_active: bool) -> tuple[Any, Any]:
    """The transformation of a storage, and its steps in one compiled loop, whose arguments are donated."""
    tx = sparsify(optax.adam(0.003), RIGL, storage=ACTIVE if is_active else "masks")

    def one(carry: Carry, batch: Any) -> tuple[Carry, Array]:
        params, opt_state = carry
        value, gradients = jax.value_and_grad(loss_of)(params, batch)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return tx, jax.jit(lambda carry, batches: lax.scan(one, carry, batches), donate_argnums=0)


def start(is_active: bool) -> Carry:
    params = make_params()
    opt_state = trainer(is_active)[0].init(params)
    return apply_masks(params, opt_state), opt_state


def assert_same(one: Carry, other: Carry) -> None:
    """The same masks, and nearly the same weights."""
    own, others = masks(one[1], one[0]), masks(other[1], other[0])
    assert own.keys() == others.keys() == {f"{name}/kernel" for name in SHAPES}
    for name, mask in own.items():
        np.testing.assert_array_equal(mask, others[name], err_msg=name)
    weights, expected = named_leaves(dense(one[0])), named_leaves(dense(other[0]))
    for name, weight in weights.items():
        np.testing.assert_allclose(weight, expected[name], rtol=1e-2, atol=1e-4, err_msg=name)


@checks("A1", "A2", "V1", "P2")
def test_a_training_is_that_with_masks_and_changes_its_storage() -> None:
    """From masks to active weights, two runs in one trace for all their steps, and back; beside it one with masks."""
    own, masked = start(False), start(False)
    was_active = False
    for number, is_active in enumerate((False, True, True, False)):
        tx, train = trainer(is_active)
        if is_active != was_active:
            opt_state = resume(tx, own[1], own[0])
            own, was_active = (apply_masks(own[0], opt_state), opt_state), is_active
        assert all(isinstance(layer["kernel"], ActiveWeight) == is_active for layer in own[0].values())
        steps = batches(range(7 * number, 7 * number + 7))
        own, losses = train(own, steps)
        masked, expected = trainer(False)[1](masked, steps)
        np.testing.assert_allclose(losses, expected, rtol=1e-3)
        assert_same(own, masked)
        assert str(table(own[1], own[0])) == str(table(masked[1], masked[0]))
    assert trainer(True)[1]._cache_size() == 1


CASES: dict[str, dict[str, Any]] = {
    "valid": {"padding": "VALID", "stride": (2, 3)},
    "same": {"padding": "SAME", "stride": 2, "dilation": (1, 2)},
    "same, lower": {"padding": "same_lower", "stride": (1, 2), "groups": 2},
    "numbers": {"padding": (2, 1), "groups": 4},
    "pairs": {"padding": ((0, 1), (2, 0)), "dilation": 2},
}


def kernel_of(inputs_first: bool, groups: int) -> ActiveWeight:
    """Of eight inputs, twelve outputs and height and width 3 and 2."""
    shape = (3, 2, 8 // groups, 12) if inputs_first else (12, 8 // groups, 3, 2)
    axes = ((2,), (3,)) if inputs_first else ((1,), (0,))
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)}
    tx = sparsify(optax.sgd(0.1), Static(0.6, distribution=FREE), axes={"w": axes}, storage=ACTIVE)
    weight: ActiveWeight = apply_masks(params, tx.init(params))["w"]
    return weight


@pytest.mark.parametrize(
    ("case", "flax"), [*((case, True) for case in CASES), ("same, lower", False), ("pairs", False)]
)
def test_a_convolution_is_that_of_jax(case: str, flax: bool) -> None:
    """Outputs and gradients in the layouts of flax and of equinox; without compiling, and with more axes of samples."""
    options = {"stride": 1, "dilation": 1, "groups": 1} | CASES[case]
    weight = kernel_of(flax, options["groups"])
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 6, 8) if flax else (2, 8, 7, 6)), jnp.float32)
    own = functools.partial(sparse_conv, inputs_first=flax, channels_last=flax, **options)
    y, pull_back = jax.vjp(own, weight, x)

    @jax.jit
    def expected(weight: Array, x: Array, dy: Array) -> Any:
        z, pull_back = jax.vjp(functools.partial(of_jax, options, flax), weight, x)
        return z, own(weight, x), pull_back(dy)

    (gradient, dx), close = pull_back(jnp.cos(y)), functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    z, of_dense, (dense_gradient, dense_dx) = expected(dense(weight), x, jnp.cos(y))
    close(y, z)
    np.testing.assert_array_equal(of_dense, z)
    close(dx, dense_dx)
    close(gradient.values, weight.topology.values(dense_gradient))
    np.testing.assert_array_equal(own(weight, x[:, None])[:, 0], y)
    close(own(weight, x[0]), y[0])


def of_jax(options: Any, flax: bool, weight: Array, x: Array) -> Array:
    stride, dilation = ((own, own) if isinstance(own, int) else own for own in (options["stride"], options["dilation"]))
    padding = options["padding"]
    if not isinstance(padding, str):
        padding = [(own, own) if isinstance(own, int) else own for own in padding]
    axes = ("NHWC", "HWIO", "NHWC") if flax else ("NCHW", "OIHW", "NCHW")
    groups = options["groups"]
    return lax.conv_general_dilated(x, weight, stride, padding, None, dilation, axes, feature_group_count=groups)


@checks("A1", "A2")
@pytest.mark.parametrize("kernel", [(3, 2, 4, 12), (1, 1, 4, 12)])
def test_an_update_has_the_bits_of_numpy(kernel: tuple[int, ...]) -> None:
    """Gradients, the dense gradient, and the masks after it; and so have arrays whose values are traced."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=kernel).astype(np.float32), rng.normal(size=(3, 7, 6, 8)).astype(np.float32)
    options: Any = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    layers = [Layer("w", kernel, in_axes=(2,), out_axes=(3,), groups=2)]
    arrays = {"w": weight.copy()}
    optimizer = rigl_backends.numpy.SGD(arrays, 0.1)
    own = rigl_backends.numpy.sparsify(arrays, optimizer, RIGL, layers=layers, storage=ACTIVE)
    images = x.transpose(0, 3, 1, 2)
    dy = np.cos(own.conv["w"](images, **options))
    expected_dx, expected = own.conv["w"].backward(images, dy, **options)

    tx = sparsify(optax.sgd(0.1), RIGL, layers=layers, storage=ACTIVE)
    params = {"w": jnp.asarray(weight)}
    opt_state = tx.init(params)
    params = apply_masks(params, opt_state)
    _, pull_back = jax.vjp(lambda w, x: sparse_conv(w, x, groups=2, **options), params["w"], jnp.asarray(x))
    gradient, dx = pull_back(jnp.asarray(dy.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(gradient.values, expected.active)
    np.testing.assert_array_equal(dx, np.transpose(expected_dx, (0, 2, 3, 1)))  # type: ignore[arg-type]
    layout, index = params["w"].layout, params["w"].topology.index()
    found = params["w"].link.gradient(layout, index, np.asarray(gradient.values))
    for (place, block), (other_place, other) in zip(found.blocks(), expected.blocks(), strict=True):
        assert place == other_place
        np.testing.assert_array_equal(block, other)
    _, opt_state = tx.update({"w": gradient}, opt_state, params)
    optimizer.step({"w": expected})
    np.testing.assert_array_equal(masks(opt_state, apply_masks(params, opt_state))["w"], own.masks["w"])
    np.testing.assert_array_equal(jax.jit(lambda w: w.topology.flat())(params["w"]), index.flat())


@checks("A1", "N2")
def test_convolutions_that_are_never_dense() -> None:
    """The topology of a start with dense weights, and values as flax's Conv draws them."""
    tx = sparsify(optax.sgd(0.1), RIGL, storage=ACTIVE)
    params, _ = begin(tx, lambda: {"conv": {"kernel": jnp.zeros((3, 3, 16, 24))}}, jax.random.key(0))
    weight = params["conv"]["kernel"]
    topology = tx.init(dense(params)).masks["conv/kernel"]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(weight.topology.mask(), topology.mask())
    assert float(weight.values.std()) == pytest.approx((3 * 3 * 16) ** -0.5, rel=0.1)


def test_without_numba() -> None:
    """NumPy's kernels give the same, up to rounding."""
    weight, x = kernel_of(True, 1), jnp.ones((2, 7, 6, 8))

    def gradient(weight: ActiveWeight) -> Array:
        found: Array = jax.grad(lambda weight: jnp.sin(sparse_conv(weight, x, padding="SAME")).sum())(weight).values
        return found

    fast = gradient(weight)
    link: Any = weight.link
    link.kernels, link.convolutions = numpy_kernels, numpy_convolutions
    np.testing.assert_allclose(gradient(weight), fast, rtol=1e-4, atol=1e-5)


@checks("A3", "P3")
def test_what_cannot_be_held_so() -> None:
    """The kernel of another convolution keeps its mask, with the reason; `"active"` takes what pays."""
    large, shapes = (3, 3, 128, 128), {"one": (9, 64, 256), "three": (3, 3, 3, 8, 16), "small": (3, 3, 4, 8)}
    params = {
        f"conv_{name}": {"kernel": spec(shape, jnp.float32)} for name, shape in (shapes | {"large": large}).items()
    }
    params["ConvTranspose_0"] = {"kernel": spec(large, jnp.float32)}
    recipe = Static(0.9, distribution=FREE)
    with pytest.warns(SparsityWarning) as told:
        held = names_of_active("active", plan(params, recipe), params)
    assert [*held.values()] == ["conv_large/kernel"]
    message = str(told[0].message)
    for name in ("one", "three"):
        assert f"'conv_{name}/kernel' is not a matrix or the kernel of a two-dimensional convolution" in message
    assert "'conv_small/kernel' has 288 connections, and products pay from 131,072 on" in message
    assert "'ConvTranspose_0/kernel' is a transposed convolution" in message
    transposed = eqx.filter_eval_shape(lambda: [eqx.nn.ConvTranspose2d(4, 8, 3, key=jax.random.key(0))])
    depthwise = {"w": spec((3, 3, 1, 8), jnp.float32)}
    layers = [Layer("w", (3, 3, 1, 8), in_axes=(2,), out_axes=(3,), groups=8, depthwise=True)]
    for given, options, reason in (
        (eqx.filter(transposed, lambda leaf: hasattr(leaf, "dtype")), {}, "'0/weight' is a transposed convolution"),
        (depthwise, {"layers": layers}, "'w' is depthwise"),
    ):
        with pytest.raises(ValueError, match=reason):
            sparsify(optax.sgd(0.1), recipe, storage=ACTIVE, **options).init(given)


@checks("P3")
def test_mistakes_are_named() -> None:
    weight, x = kernel_of(True, 1), jnp.ones((2, 7, 6, 8))
    tx = sparsify(optax.sgd(0.1), RIGL, storage=ACTIVE)
    params = {"head": {"kernel": jnp.ones((24, 5))}}
    matrix = apply_masks(params, tx.init(params))["head"]["kernel"]
    for options, message in (
        ({"padding": "CIRCULAR"}, "padding is 'CIRCULAR': give 'SAME', 'SAME_LOWER', 'VALID', or numbers of zeros"),
        ({"padding": (1, 1, 1)}, "padding is (1, 1, 1): give a number, or two"),
        ({"padding": -1}, "padding is -1: give a whole number of at least 0"),
        ({"padding": None}, "padding is None: give a whole number"),
        ({"stride": 0}, "stride is 0: give a whole number of at least 1, or two of them"),
        ({"dilation": (1, 2, 3)}, "dilation is (1, 2, 3)"),
        ({"groups": 5}, "groups is 5: layer 'w' has 12 outputs"),
        ({"groups": 2}, "x has shape (2, 7, 6, 8): layer 'w' reads images (..., height, width, 16)"),
        ({"channels_last": False}, "layer 'w' reads images (..., 8, height, width)"),
        ({"inputs_first": False}, "is of shape (3, 2, 8, 12): give inputs_first=True"),
        ({"x": x[0, 0]}, "x has shape (6, 8): give images (..., height, width, channels)"),
        ({"x": x[:, :2]}, "inputs have height and width (2, 6), which the kernel (3, 2)"),
        ({"weight": matrix}, "the weight of 'head/kernel' is a matrix: call sparse_linear"),
        ({"weight": jnp.ones((8, 12))}, "weight has shape (8, 12): give the kernel of a two-dimensional convolution"),
    ):
        given: Any = {"weight": weight, "x": x, "padding": 0} | options
        with pytest.raises(ValueError, match=re.escape(message)):
            sparse_conv(**given)
    with pytest.raises(TypeError, match="x is float16: the kernels of sparse layers multiply float32"):
        sparse_conv(weight, x.astype(jnp.float16), padding=0)
    with pytest.raises(ValueError, match="sparse_conv is inside vmap: call it on the whole batch"):
        jax.vmap(lambda x: sparse_conv(weight, x, padding=0))(x)
    with pytest.raises(ValueError, match="the weight of 'w' is the kernel of a convolution: call sparse_conv"):
        sparse_linear(weight, x)
