"""Properties of distributions and exact counts (rules B1 to B8), against a slow reading with fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rigl_core import ErdosRenyi, ErdosRenyiKernel, Layer, PerLayer, Static, Uniform, make_plan, specs
from rigl_core.parts.distributions import Distribution
from rigl_core.testing import budget_oracle
from rigl_core.testing.checks import checks

sizes = st.integers(1, 9)
shapes = st.one_of(
    st.tuples(sizes, sizes), st.tuples(sizes, sizes, st.integers(1, 3)), st.tuples(sizes, sizes, sizes, sizes)
)


@st.composite
def layer_lists(draw: st.DrawFn, min_size: int = 1) -> list[Layer]:
    drawn = draw(st.lists(shapes, min_size=min_size, max_size=7))
    return [Layer(f"layer{i}", shape, in_axes=(1,), out_axes=(0,)) for i, shape in enumerate(drawn)]


sparsities = st.decimals(0, "0.9999", places=4).map(str)
distributions = st.sampled_from([Uniform(first_dense=False), ErdosRenyi(), ErdosRenyiKernel()])


def rounded(sparsity: str, size: int) -> int:
    return round((1 - Fraction(sparsity)) * size)


@checks("B1", "B2")
@given(layer_lists(), sparsities, distributions)
def test_active_count_is_exact(layers: list[Layer], sparsity: str, distribution: Distribution) -> None:
    plan = make_plan(Static(float(sparsity), distribution=distribution), layers)
    assert sum(plan.active) == rounded(sparsity, sum(layer.size for layer in layers))
    assert all(0 <= n <= layer.size for n, layer in zip(plan.active, layers, strict=True))


@checks("B2", "B1")
@pytest.mark.parametrize(("sparsity", "size", "active"), [(0.9, 25, 2), (0.7, 5, 2), (0.3, 45, 32), (0.15, 10, 8)])
def test_sparsity_is_the_decimal_its_user_wrote(sparsity: float, size: int, active: int) -> None:
    """In each case the exact count is a half, which is rounded to the even count. In binary floats it is not a half."""
    plan = make_plan(Static(sparsity), [Layer("one", (size, 1))])
    assert plan.active == (active,)


@checks("B8", "B3")
@given(layer_lists(), sparsities)
def test_erk(layers: list[Layer], sparsity: str) -> None:
    plan = make_plan(Static(float(sparsity), distribution=ErdosRenyiKernel()), layers)
    scales = [Fraction(sum(layer.shape), layer.size) for layer in layers]
    layer_sizes = [layer.size for layer in layers]
    assert list(plan.active) == budget_oracle.counts(scales, layer_sizes, rounded(sparsity, sum(layer_sizes)))


@checks("B7", "B3")
@given(layer_lists(), sparsities)
def test_er(layers: list[Layer], sparsity: str) -> None:
    plan = make_plan(Static(float(sparsity), distribution=ErdosRenyi()), layers)
    scales = [Fraction(layer.shape[0] + layer.shape[1], layer.shape[0] * layer.shape[1]) for layer in layers]
    layer_sizes = [layer.size for layer in layers]
    assert list(plan.active) == budget_oracle.counts(scales, layer_sizes, rounded(sparsity, sum(layer_sizes)))


@checks("B7", "B8")
@given(layer_lists(), sparsities, st.sampled_from([ErdosRenyi(), ErdosRenyiKernel()]))
def test_the_memory_layout_does_not_matter(layers: list[Layer], sparsity: str, distribution: Distribution) -> None:
    """The axis orders (out, in, kernel...) and (kernel..., in, out) give the same counts."""
    moved = []
    for layer in layers:
        shape = (*layer.shape[2:], layer.shape[1], layer.shape[0])
        last = len(shape) - 1
        moved.append(Layer(layer.name, shape, in_axes=(last - 1,), out_axes=(last,)))
    recipe = Static(float(sparsity), distribution=distribution)
    assert make_plan(recipe, moved).active == make_plan(recipe, layers).active


@checks("B6", "B4")
@given(layer_lists(min_size=2), sparsities)
def test_uniform_keeps_the_first_layer_dense(layers: list[Layer], sparsity: str) -> None:
    plan = make_plan(Static(float(sparsity), distribution=Uniform()), layers)
    rest = layers[1:]
    assert plan.active[0] == layers[0].size
    assert sum(plan.active[1:]) == rounded(sparsity, sum(layer.size for layer in rest))
    for layer, n in zip(rest, plan.active[1:], strict=True):
        share = Fraction(sum(plan.active[1:]), sum(layer.size for layer in rest)) * layer.size
        assert abs(n - share) < 1


@checks("B4")
@given(layer_lists(min_size=3), sparsities, sparsities)
def test_pinned_layers_are_outside_the_budget(layers: list[Layer], sparsity: str, own: str) -> None:
    recipe = Static(float(sparsity), dense=["layer0"], layer_sparsity={"layer1": float(own), "layer[01]": 0.5})
    plan = make_plan(recipe, layers)
    free = sum(layer.size for layer in layers[2:])
    assert plan.active[0] == layers[0].size
    assert plan.active[1] == rounded(own, layers[1].size)
    assert sum(plan.active[2:]) == rounded(sparsity, free)


@checks("B5")
@given(layer_lists(min_size=2), sparsities)
def test_the_others_compensate_or_an_error_says_how_far_they_can(layers: list[Layer], sparsity: str) -> None:
    size, pinned = sum(layer.size for layer in layers), layers[0].size
    recipe = Static(float(sparsity), dense=["layer0"], compensate=True)
    if rounded(sparsity, size) >= pinned:
        plan = make_plan(recipe, layers)
        assert sum(plan.active) == rounded(sparsity, size)
        assert plan.active[0] == pinned
        return
    with pytest.raises(ValueError, match="highest sparsity possible is") as error:
        make_plan(recipe, layers)
    highest = str(error.value).split("possible is ")[1].split(";")[0]
    assume(Fraction(highest) < 1)
    assert sum(make_plan(Static(float(highest), dense=["layer0"], compensate=True), layers).active) >= pinned


@checks("B5")
def test_a_budget_that_pinned_sparse_layers_cannot_reach_names_the_lowest_sparsity() -> None:
    layers = [Layer("a", (10, 10)), Layer("b", (10, 10))]
    recipe = Static(0.2, layer_sparsity={"a": 0.9}, compensate=True)
    with pytest.raises(ValueError, match=r"lowest sparsity possible is 0\.45"):
        make_plan(recipe, layers)
    at_the_edge = Static(0.45, layer_sparsity={"a": 0.9}, compensate=True)
    assert make_plan(at_the_edge, layers).active == (10, 100)


@checks("B4", "B1")
@given(layer_lists(), st.lists(sparsities, min_size=7, max_size=7))
def test_an_explicit_sparsity_for_every_layer(layers: list[Layer], own: list[str]) -> None:
    pairs = {f"layer{i}": float(s) for i, s in enumerate(own[: len(layers)])}
    plan = make_plan(Static(distribution=PerLayer({**pairs, "*": 0.5} if len(layers) == 7 else pairs)), layers)
    assert list(plan.active) == [rounded(s, layer.size) for s, layer in zip(own, layers, strict=False)]


@st.composite
def sliced_layers(draw: st.DrawFn) -> list[Layer]:
    """Layers of which some are stacks, along the first axis or an inner one, and some are fused along the out axis."""
    layers = []
    for layer in draw(layer_lists(min_size=2)):
        stack, parts = draw(st.sampled_from([0, 1, 3])), draw(st.sampled_from([0, 1, 2, 3]))
        out, *rest = layer.shape
        shape, fused = (max(parts, 1) * out, *rest), (0, parts) if parts else ()
        if not stack:
            layers.append(Layer(layer.name, shape, (1,), (0,), fused=fused))
            continue
        if draw(st.booleans()):
            fused = (1, parts) if parts else ()
            layers.append(Layer(layer.name, (stack, *shape), (2,), (1,), stacked=(0,), fused=fused))
        else:
            inner = (shape[0], stack, *rest)
            layers.append(Layer(layer.name, inner, (2,), (0,), stacked=(1,), fused=fused))
    return layers


def scale_of_a_slice(distribution: Distribution, layer: Layer) -> Fraction:
    sizes = budget_oracle.slice_sizes(layer).values()
    by_kind = {
        "uniform": Fraction(1),
        "er": budget_oracle.erdos_renyi_scale(layer),
        "erk": Fraction(sum(sizes), math.prod(sizes)),
    }
    return by_kind[distribution.kind]


def slices_of(layer: Layer) -> list[Layer]:
    """The slices of a layer as layers of their own."""
    sizes = budget_oracle.slice_sizes(layer)
    axes = [tuple([*sizes].index(axis) for axis in own) for own in (layer.in_axes, layer.out_axes)]
    slices = layer.size // math.prod(sizes.values())
    return [Layer(f"{layer.name}.{i}", tuple(sizes.values()), *axes) for i in range(slices)]


@checks("B12", "B7", "B8", "B3")
@given(sliced_layers(), sparsities, distributions)
def test_slices_share_the_budget_as_layers_of_their_own(
    layers: list[Layer], sparsity: str, distribution: Distribution
) -> None:
    """Densities equal those of a network of single layers; counts are the nearest that all slices can share."""
    recipe = Static(float(sparsity), distribution=distribution)
    plan = make_plan(recipe, layers)
    sizes, slices = [layer.size for layer in layers], [slices_of(layer) for layer in layers]
    alone = make_plan(recipe, [one for own in slices for one in own])
    assert [density for density, own in zip(plan.densities, slices, strict=True) for _ in own] == list(alone.densities)
    assert plan.epsilon == alone.epsilon
    scales = [scale_of_a_slice(distribution, layer) for layer in layers]
    counts = budget_oracle.counts(scales, sizes, rounded(sparsity, sum(sizes)))
    assert list(plan.active) == [
        len(own) * round(Fraction(count, len(own))) for count, own in zip(counts, slices, strict=True)
    ]


RESNET50 = specs.resnet50()


@checks("B8", "B1")
def test_resnet50_as_published() -> None:
    """The densities of the 54 kernels are those of the paper's code, to four digits."""
    assert (len(RESNET50), sum(layer.size for layer in RESNET50)) == (54, 25_502_912)
    at80, at90 = (make_plan(Static(s), RESNET50) for s in (0.8, 0.9))
    by_name = [layer.name for layer in RESNET50].index
    assert [sum(plan.active) for plan in (at80, at90)] == [5_100_582, 2_550_291]
    assert [len(RESNET50) - len(plan.sparse_layers) for plan in (at80, at90)] == [8, 1]
    shown = [f"{plan.densities[by_name(name)]:.4f}" for plan in (at80, at90) for name in ("conv1", "fc")]
    assert shown == ["0.8572", "0.1482", "0.4200", "0.0726"]
    assert f"{at80.densities[by_name('layer4.1.conv2')]:.4f}" == "0.0435"


@checks("B8")
@pytest.mark.parametrize(
    ("sparsity", "published", "exact"), [("0.8", "99.5617", "99.5612"), ("0.9", "48.7866", "48.7861")]
)
def test_resnet50_epsilon(sparsity: str, published: str, exact: str) -> None:
    """The published code first rounds each layer's zeros down, so its budget is about 25 weights larger."""
    larger = sum(layer.size - math.floor(Fraction(sparsity) * layer.size) for layer in RESNET50)
    assert f"{float(ErdosRenyiKernel().epsilon(RESNET50, larger)):.4f}" == published
    assert f"{make_plan(Static(float(sparsity)), RESNET50).epsilon:.4f}" == exact


@checks("B8")
def test_layers_without_weights_and_a_dense_plan() -> None:
    layers = [Layer("empty", (0, 3)), Layer("one", (1, 1)), Layer("some", (4, 5))]
    assert make_plan(Static(0.0), layers).active == (0, 1, 20)
    assert sum(make_plan(Static(0.9), layers).active) == 2
