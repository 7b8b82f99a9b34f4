"""Small trainings, the smallest first, and properties that name the smallest one that breaks a rule."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rigl_core import Constant, Cosine, ErdosRenyiKernel, Layer, SparsityWarning, Uniform, UpdateSchedule
from rigl_core.methods import SET, RigL
from rigl_core.testing import Array, Harness, NotOffered, OptimizerSpec, Recorded, Session, Step, Training
from rigl_core.testing.limits import fit

SHAPES = (((2, 2),), ((2, 4),), ((4, 4),), ((4, 4), (4, 4)), ((5, 7), (7, 4)), ((6, 6), (5, 5), (3, 7)))
PLAIN = OptimizerSpec("sgd", lr=0.0625, momentum=0.9)
ADAM = OptimizerSpec("adam", lr=0.0625)
FROZEN = OptimizerSpec("sgd", lr=0.0, momentum=1.0)
"""Without a learning rate, weights stay; without a gradient, momentum stays: what changes, the update has changed."""

Gradients = Callable[[int, Recorded], dict[str, Array | None]]


def cases(
    optimizers: Sequence[OptimizerSpec] = (PLAIN,),
    *,
    method: str = "RigL",
    every: Sequence[int] = (2,),
    shapes: Sequence[Sequence[tuple[int, ...]]] = SHAPES,
    alpha: float = 0.6,
    late: bool = False,
) -> Iterator[Training]:
    """Trainings by size, then by optimizer; each has two updates, or, if ``late``, five steps before the first."""
    for own, optimizer, sparsity, often, parts in itertools.product(
        shapes, optimizers, (0.5, 0.75), (50,) if late else every, range(3)
    ):
        uniform = Uniform(first_dense=len(own) > 1)
        layers = tuple(Layer(f"fc{i}.weight", shape, in_axes=(1,), out_axes=(0,)) for i, shape in enumerate(own))
        rng = np.random.default_rng(len(layers) + layers[0].size)
        params = {layer.name: rng.normal(size=layer.shape).astype(np.float32) for layer in layers}
        params["fc0.bias"] = rng.normal(size=(3,)).astype(np.float32)
        recipe = {"RigL": RigL, "SET": SET}[method](
            sparsity,
            schedule=UpdateSchedule(begin=often - 1, end=9 * often - 1, every=often),
            distribution=uniform if parts else ErdosRenyiKernel(),
            drop_fraction=Constant(alpha) if parts == 2 else Cosine(alpha),
        )
        yield Training(params, layers, recipe, optimizer, 5 if late else 2 * often + 1, seed=layers[0].size)


def by(*optimizers: OptimizerSpec, **options: Any) -> Callable[[], Iterator[Training]]:
    """The trainings of `cases`, for `smallest`."""
    return lambda: cases(optimizers, **options)


def smallest(
    trainings: Callable[[], Iterator[Training]], *, errors_break: bool = False
) -> Callable[[Callable[[Harness, str, Training], None]], Callable[[Harness, str], None]]:
    """Turn a check of one training into a property, which fails with the first training that breaks the rule.

    A training that dies of an error shows nothing about another rule, so it is passed over; unless all of them die.

    Args:
        trainings: makes the trainings, the smallest first.
        errors_break: whether such an error breaks this very rule.
    """

    def decorate(check: Callable[[Harness, str, Training], None]) -> Callable[[Harness, str], None]:
        def property_(harness: Harness, mode: str) -> None:
            lacking: NotOffered | None = None
            error: Exception | None = None
            held = 0
            for training in trainings():
                try:
                    training = fit(harness, training)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", SparsityWarning)
                        check(harness, mode, training)
                    held += 1
                except NotOffered as lack:
                    lacking = lacking or lack
                except Exception as died:
                    if is_ours(died):
                        raise AssertionError(f"{first_line(died)} ({describe(training)})") from died
                    if errors_break:
                        raise AssertionError(f"{kind_and_line(died)} ({describe(training)})") from died
                    error = error or died
            if not held and (error or lacking):
                raise error or lacking or NotOffered

        property_.__name__ = check.__name__
        property_.__doc__ = check.__doc__
        property_.__module__ = check.__module__
        return property_

    return decorate


def is_ours(error: Exception) -> bool:
    """Whether an error is a failed assertion of these properties, and not one of the library."""
    ours = ("conformance_tests", "rigl_core.testing", "numpy")
    return isinstance(error, AssertionError) and _module(error).startswith(ours)


def first_line(error: BaseException) -> str:
    """An error's message, up to its first line break."""
    return str(error).partition("\n")[0]


def kind_and_line(error: BaseException) -> str:
    """An error's type, the module that raised it, and the first line of its message."""
    return f"{type(error).__name__} in {_module(error)}: {first_line(error)}".removesuffix(": ")


def _module(error: BaseException) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return "" if place is None else str(place.tb_frame.f_globals.get("__name__", ""))


def describe(training: Training) -> str:
    """A training in a few words."""
    shapes = ", ".join(str(layer.shape) for layer in training.layers)
    spec, recipe = training.optimizer, training.recipe
    momentum = f" with momentum {spec.momentum}" if spec.kind == "sgd" and spec.momentum else ""
    words = f"{'SGD' if spec.kind == 'sgd' else 'Adam'}{momentum}" if spec.lr else "weights held still"
    words += " and clipping" if spec.clip_norm else " and weight decay" if spec.weight_decay else ""
    plural = "layers" if len(training.layers) > 1 else "layer"
    return f"{plural} {shapes}, sparsity {recipe.sparsity}, every {training.schedule.every}, {words}"


def walk(session: Session, training: Training, gradients: Gradients | None = None) -> Iterator[Step]:
    """Run a training, and yield each of its steps; gradients of the training's own by default."""
    before = Recorded.of(session)
    for number in range(training.steps):
        given = training.gradients(number) if gradients is None else gradients(number, before)
        session.step(given)
        after = Recorded.of(session)
        dense = {name: np.zeros_like(training.params[name]) if g is None else g for name, g in given.items()}
        yield Step(number, dense, before, after, training.schedule.fires(number))
        before = after


def distinct(training: Training, number: int = 0) -> dict[str, Array]:
    """Gradients of which no two have the same magnitude."""
    rng = np.random.default_rng((training.seed, number))
    gradients = {}
    for name, param in training.params.items():
        ranks = rng.permutation(param.size).reshape(param.shape) + 1
        gradients[name] = (ranks * rng.choice([-1, 1], param.shape) / param.size).astype(np.float32)
    return gradients


def outside(training: Training) -> Gradients:
    """Distinct gradients outside the mask, and 0 inside: what an update drops does not grow again."""

    def gradients(number: int, before: Recorded) -> dict[str, Array | None]:
        return {
            name: np.where(before.masks[name], np.float32(0), gradient) if name in before.masks else gradient
            for name, gradient in distinct(training).items()
        }

    return gradients
