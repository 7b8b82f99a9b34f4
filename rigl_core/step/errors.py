"""The error messages that all adapters share, so that users read the same sentences in each framework.

Each message says what is wrong, where, and what to do. Most functions return an exception, which the adapter raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rigl_core.model.layers import Layer
from rigl_core.plan import Plan

DTYPES = ("float16", "bfloat16", "float32", "float64")
"""The dtypes that layers may have."""


def wrong_type(parameter: str, value: object, expected: str) -> TypeError:
    """The error for an object, such as a model, that is not of the framework's type, whose name is ``expected``."""
    article = "an" if expected[0] in "aeiou" else "a"
    return TypeError(f"{parameter} is a {type(value).__name__}: it must be {article} {expected}.")


def already_sparsified(parameter: str) -> ValueError:
    """The error for an optimizer that is already sparsified."""
    return ValueError(
        f"{parameter} is already sparsified: give it as it was before (call remove() on the handle, if it has one), "
        "or make a new one."
    )


def too_many_choices(*others: str) -> ValueError:
    """The error for ``layers`` together with other parameters that choose layers."""
    return ValueError(f"layers already says what to sparsify: leave out {' and '.join(others)}.")


def nothing_chosen(seen: Sequence[str]) -> ValueError:
    """The error for a model without any layer; ``seen`` says what its parameters are, each with its shape."""
    shown = ", ".join(seen[:8]) + (f" and {len(seen) - 8} more" if len(seen) > 8 else "")
    return ValueError(
        f"layers is empty: the model has nothing to sparsify. It has {shown or 'no parameters'}. Name what should be "
        "sparse in include, and its in and out axes in axes."
    )


def no_such_array(layer: Layer) -> ValueError:
    """The error for a layer that is not among the parameters."""
    return ValueError(f"layers names {layer.name!r} of shape {layer.shape}: params has no such array.")


def tied(first: str, second: str) -> ValueError:
    """Two layers are one parameter."""
    return ValueError(f"layers {first!r} and {second!r} are one tied parameter: name it once, or exclude the other.")


def not_held(layer: Layer) -> ValueError:
    """The error for a layer that the optimizer does not train."""
    return ValueError(
        f"optimizer does not hold layer {layer.name!r}: make it with this parameter, or exclude the layer."
    )


def check_dtype(layer: Layer, dtype: object) -> None:
    """Refuse a layer of integers, booleans, complex or 8-bit numbers.

    Args:
        layer: the layer.
        dtype: the layer's dtype; its text is a name such as ``float32`` or ``torch.float32``.

    Raises:
        ValueError: if the dtype is not among `DTYPES`.
    """
    name = str(dtype).rpartition(".")[2]
    if name not in DTYPES:
        raise ValueError(
            f"layer {layer.name!r} has the dtype {name}: only {', '.join(DTYPES)} have masks. "
            "Convert the layer, or exclude it."
        )


def wrong_shape(layer: Layer, kind: str, shape: tuple[int, ...]) -> ValueError:
    """The error for an array that no longer fits its layer; ``kind`` is parameter, gradient or mask."""
    if kind == "gradient" and shape[1:] == layer.shape:
        return ValueError(
            f"layer {layer.name!r} has a gradient for each of {shape[0]} examples: give their mean, after you have "
            "clipped them."
        )
    return ValueError(
        f"layer {layer.name!r} had the shape {layer.shape} and now has the {kind} shape {shape}: "
        "sparsify again after changing a model."
    )


def weights_outside(counts: Mapping[str, int]) -> str:
    """The warning for weights outside the masks.

    Args:
        counts: the number of such weights, by layer name.
    """
    listed = ", ".join(f"{count:,} of {name!r}" for name, count in counts.items() if count)
    return (
        f"weights lie outside their masks: {listed}. They were written apart from the topology, as restored weights "
        "are. Load the topology that was saved with them, or the next step zeroes them."
    )


def passed_by(step: int) -> str:
    """The warning for weights that change without a step of the training, whose coming step has this number."""
    return (
        f"weights change without a step of the sparsified optimizer, so the topology stays as it is at step {step}: "
        "call step() of this optimizer. To train with another one, or by hand, call remove() on the handle first; an "
        "optimizer can then be sparsified anew."
    )


def replaced(layers: Sequence[str], step: int) -> str:
    """The warning for a model that holds other arrays than those that were sparsified."""
    return (
        f"the model has new parameters in place of the layers {', '.join(map(repr, layers))}, so these train densely, "
        f"and the topology stays as it is at step {step}: call sparsify after what replaces parameters, with an "
        "optimizer of the new ones."
    )


def replicas_differ(layers: Sequence[str], step: int) -> str:
    """The error for replicas of a model that have different masks before a step with this number."""
    return (
        f"the replicas of the model have different masks at step {step}, in the layers {', '.join(map(repr, layers))}: "
        "averaged gradients would mix different connections. Start all replicas from equal weights, scores and recipes "
        "(wrap the model in what makes it parallel before sparsify, or seed every process alike), and load one "
        "checkpoint into all of them."
    )


def resharded(layers: Sequence[str]) -> str:
    """The error for parameters that were sharded after they were sparsified."""
    return (
        f"the layers {', '.join(map(repr, layers))} were sharded after sparsify, which gave the model new parameters, "
        "so the topology does not move with them: shard the model first (fully_shard, parallelize_module), then make "
        "the optimizer, then call sparsify. To train densely, call remove() on the handle first."
    )


def no_topology(step: int) -> str:
    """The message for an optimizer's state that was loaded, and that holds no topology."""
    return (
        f"the optimizer's state that was loaded holds no topology, so the training is at step {step} of its own "
        "topology: load the handle's own state, too. To start from a dense training, call sparsify after loading."
    )


def check_scores(plan: Plan, scores: Mapping[str, Any] | None) -> None:
    """Refuse scores that the recipe does not use, and scores that are missing.

    Scores may be missing if every layer is dense, as in the first round of a lottery.

    Raises:
        TypeError, ValueError: the message names ``scores``, or the layer.
    """
    if not plan.recipe.initial.reads_scores:
        if scores is not None:
            raise ValueError(
                f"scores are given, and the recipe starts from {plan.recipe.initial.name!r}: leave them out, or use "
                "a recipe with initial=SCORES."
            )
        return
    dense = all(active == layer.size for layer, active in zip(plan.layers, plan.initial_active, strict=True))
    if scores is None and dense:
        return
    if not isinstance(scores, Mapping):
        raise TypeError(f"scores is {type(scores).__name__}: the recipe asks for arrays by layer name.")
    for i in plan.sparse_layers:
        layer = plan.layers[i]
        if layer.name not in scores:
            raise ValueError(f"scores has none for layer {layer.name!r}: give an array of shape {layer.shape}.")
        given = scores[layer.name]
        if not hasattr(given, "shape"):
            raise TypeError(f"scores of layer {layer.name!r} are a {type(given).__name__}: give an array.")
        if tuple(given.shape) != layer.shape:
            raise ValueError(
                f"scores of layer {layer.name!r} have the shape {tuple(given.shape)}: they must have the layer's, "
                f"{layer.shape}."
            )
