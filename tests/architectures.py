"""Architectures that every framework's tests build, and the numbers that `describe` must read from them.

So the frameworks agree with each other, although no test needs two of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rigl_core import Network

TOKENS = 5
BATCH = 2

Weights = Mapping[float, int]
"""The number of weights, by the number of uses of each. It does not tell kernels apart: some libraries join them."""

EXPECTED: Mapping[str, tuple[Weights, Weights]] = {
    # 12-16-6
    "mlp": ({1: 12 * 16 + 16 * 6}, {}),
    # 32 x 32 x 3; 3x3 to 8, stride 2, padded; 3x3 depthwise; 3x3 to 16 in 4 groups; 3x3 to 6, transposed,
    # stride 2; mean over space; 3 classes
    "convnet": ({256: 9 * 3 * 8, 144: 9 * 2 * 16 + 9 * 16 * 6, 1: 6 * 3}, {196: 9 * 8}),
    # 5 tokens of 8 features; GRU of 6; two classes, after the last token
    "recurrent": ({5: 3 * 6 * (8 + 6), 1: 6 * 2}, {}),
    # 5 tokens of 8 features; self-attention of two heads of 4; two classes for each token
    "attention": ({5: 4 * 8 * 8 + 8 * 2}, {}),
    # 5 tokens of 11; embedding of 8; a layer; logits by the embedding
    "tied": ({5: 8 * 8}, {5: 11 * 8}),
}


def summary(network: Network) -> tuple[Weights, Weights]:
    """The layers and the always dense weights, as in `EXPECTED`."""
    counts: tuple[Counter[float], Counter[float]] = (Counter(), Counter())
    for count, layers in zip(counts, (network.layers, network.always_dense), strict=True):
        for layer in layers:
            count[network.positions[layer.name]] += layer.size
    return counts


def shapes_and_positions(network: Network) -> Counter[tuple[int, float]]:
    """The size and the positions of each kernel, without names and memory layouts."""
    return Counter((layer.size, network.positions[layer.name]) for layer in network.weights)
