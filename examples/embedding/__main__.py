"""Sparse training in a loop of one's own, by the pure functions of rigl_core: NumPy alone, and no adapter.

A small network learns to guess the next character of a text from the ten before it. `Topology` is all that sparse
training adds: a distribution of the budget, whole counts, and the update.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from pydoc_data.topics import topics  # Python's own language reference, as help() shows it

import numpy as np
import numpy.typing as npt

from rigl_core import Cosine, ErdosRenyi, Layer, SparsityTable, UpdateSchedule
from rigl_core.adapter import active_count, drop_counts, largest_remainder, magnitude, random_mask, updated_mask
from rigl_core.adapter import numpy_namespace as xp

Array = npt.NDArray[np.float32]
Characters = npt.NDArray[np.int64]  # (examples, CONTEXT + 1): the last one is to be guessed from the others
CONTEXT, HIDDEN, BATCH = 10, 256, 128
LEARNING_RATE, MOMENTUM = 0.1, 0.9


class Topology:
    """The masks of a network's weights, and how they learn."""

    def __init__(self, weights: dict[str, Array], sparsity: float, schedule: UpdateSchedule) -> None:
        self.layers = tuple(Layer(name, w.shape, in_axes=(0,), out_axes=(1,)) for name, w in weights.items())
        budget = active_count(sparsity, sum(layer.size for layer in self.layers))
        densities = ErdosRenyi().densities(self.layers, budget)
        shares = [density * layer.size for density, layer in zip(densities, self.layers, strict=True)]
        self.active = largest_remainder(shares, budget)
        self.drop_counts = drop_counts(schedule, Cosine(0.3), self.active)
        self.masks = {
            layer.name: random_mask(0, layer.name, layer.size, active).reshape(layer.shape)
            for layer, active in zip(self.layers, self.active, strict=True)
        }

    def update(self, number: int, layer: int, weight: Array, gradient: Array, momentum: Array) -> None:
        """Drop a layer's smallest weights and grow its largest gradients; what grows starts at zero."""
        name, k = self.layers[layer].name, int(self.drop_counts[number, layer])
        worth, promise = (magnitude(values.reshape(-1), xp=xp) for values in (weight, gradient))
        old = self.masks[name]
        flat, _ = updated_mask(worth, promise, old.reshape(-1), self.active[layer] - k, k, xp=xp)
        new = self.masks[name] = flat.reshape(old.shape)
        for values in (weight, momentum):
            values[~(old & new)] = 0


def train(weights: dict[str, Array], sparsity: float, text: Characters, steps: int) -> Topology:
    """Gradient descent with momentum; an update of the topology takes the place of a step."""
    schedule = UpdateSchedule.for_training(steps, every=25)
    topology, rng = Topology(weights, sparsity, schedule), np.random.default_rng(0)
    momentum = {name: np.zeros_like(weight) for name, weight in weights.items()}
    for name, mask in topology.masks.items():
        weights[name] *= mask
    for step in range(steps):
        gradients = differentiate(weights, text[rng.integers(len(text), size=BATCH)])
        for layer, name in enumerate(weights):
            if schedule.fires(step):
                number = schedule.latest_update(step)
                topology.update(number, layer, weights[name], gradients[name], momentum[name])
            else:
                momentum[name] = MOMENTUM * momentum[name] + gradients[name] * topology.masks[name]
                weights[name] -= LEARNING_RATE * momentum[name]
    return topology


def guess(weights: dict[str, Array], text: Characters) -> tuple[Array, Array, Array]:
    """Inputs (one-hot, side by side), hidden activations, and the probability of each character to come next."""
    alphabet = weights["output"].shape[1]
    inputs = np.eye(alphabet, dtype=np.float32)[text[:, :-1]].reshape(len(text), -1)
    hidden = np.maximum(inputs @ weights["hidden"], 0)
    logits = hidden @ weights["output"]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return inputs, hidden, odds / odds.sum(1, keepdims=True)


def differentiate(weights: dict[str, Array], text: Characters) -> dict[str, Array]:
    """The dense gradient of the mean cross-entropy: the zeros outside the masks need no special care."""
    inputs, hidden, error = guess(weights, text)
    error[np.arange(len(text)), text[:, -1]] -= 1
    error /= len(text)
    return {"hidden": inputs.T @ ((error @ weights["output"].T) * (hidden > 0)), "output": hidden.T @ error}


def evaluate(weights: dict[str, Array], text: Characters) -> str:
    """Loss in bits per character, and how many are guessed."""
    probabilities, labels = guess(weights, text)[-1], text[:, -1]
    bits = -np.log2(probabilities[np.arange(len(text)), labels]).mean()
    return f"{bits:.3f} bits per character, {np.mean(probabilities.argmax(1) == labels):.1%} guessed"


def main() -> None:
    """Train on a text, evaluate on its last part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, help="a text file; by default Python's language reference")
    parser.add_argument("--sparsity", type=float, default=0.9, help="share of zero weights (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="of the training (default: %(default)s)")
    options = parser.parse_args()
    written = options.text.read_text(encoding="utf-8") if options.text else "\n".join(topics.values())
    alphabet, codes = np.unique(list(written), return_inverse=True)
    text = np.lib.stride_tricks.sliding_window_view(codes, CONTEXT + 1)
    split = len(text) * 9 // 10
    seen, unseen = text[:split], text[split:][:5000]
    rng = np.random.default_rng(0)
    shapes = {"hidden": (CONTEXT * len(alphabet), HIDDEN), "output": (HIDDEN, len(alphabet))}
    weights = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    print("before:", evaluate(weights, unseen))
    topology = train(weights, options.sparsity, seen, options.steps)
    print("after: ", evaluate(weights, unseen))
    print(SparsityTable(topology.layers, tuple(int(mask.sum()) for mask in topology.masks.values())))


if __name__ == "__main__":
    main()
