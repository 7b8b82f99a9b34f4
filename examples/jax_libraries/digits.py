"""scikit-learn's handwritten digits, in batches: the data of all four examples."""

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

STEPS = 300


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images (n, 8, 8, 1) in [0, 1] and labels (n,), for training and for testing."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    return train_x, train_y, test_x, test_y


def batches(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`STEPS` batches of 128."""
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        chosen = rng.choice(len(images), 128, replace=False)
        yield images[chosen], labels[chosen]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of examples whose largest logit is that of their label."""
    return float(np.mean(np.argmax(logits, axis=-1) == labels))
