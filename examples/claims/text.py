"""The recurrent network on text: one GRU layer that predicts the next character."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cases import Setting
from idx import DataError
from tasks import Batch

UNITS, EMBEDDING = 128, 32
BATCH, LENGTH = 32, 64


class CharacterModel(nn.Module):
    """Embedding, GRU, linear layer. The embedding stays dense, as in the paper (appendix I)."""

    def __init__(self, characters: int, width: float = 1.0) -> None:
        super().__init__()
        units = max(round(UNITS * width), 1)
        self.embedding = nn.Embedding(characters, EMBEDDING)
        self.gru = nn.GRU(EMBEDDING, units, batch_first=True)
        self.head = nn.Linear(units, characters)

    def forward(self, text: Tensor) -> Tensor:
        """Logits, (batch, length, characters), of characters, (batch, length)."""
        hidden, _ = self.gru(self.embedding(text))
        logits: Tensor = self.head(hidden)
        return logits


class Text:
    """A text in memory: nine tenths to learn from, the rest for validation and test.

    Args:
        path: a text file in UTF-8; None for the reference of Python's own help, which lies beside every Python.

    Raises:
        DataError: if the file cannot be read, or is too short.
    """

    def __init__(self, path: Path | None = None) -> None:
        content = _read(path)
        known = {character: code for code, character in enumerate(sorted(set(content)))}
        codes = torch.tensor([known[character] for character in content])
        tenth = len(codes) // 20
        if tenth < BATCH * (LENGTH + 1):
            raise DataError(f"{path} holds {len(content):,} characters: give a text of at least 100,000.")
        self.name, self.characters = "Python's own reference" if path is None else path.name, len(known)
        self._train = codes[: -2 * tenth]
        self._parts = {"validation": codes[-2 * tenth : -tenth], "test": codes[-tenth:]}

    def model(self, width: float = 1.0) -> nn.Module:
        """A new network."""
        return CharacterModel(self.characters, width)

    def optimizer(self, model: nn.Module, setting: Setting) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(model.parameters(), lr=setting.learning_rate)

    def batches(self, seed: int, steps: int) -> Iterator[Batch]:
        """Random batches, with replacement."""
        chosen = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            starts = torch.randint(len(self._train) - LENGTH, (BATCH,), generator=chosen)
            blocks = torch.stack([self._train[start : start + LENGTH + 1] for start in starts.tolist()])
            yield blocks[:, :-1], blocks[:, 1:]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy."""
        return functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    @torch.no_grad()
    def score(self, model: nn.Module, part: str) -> float:
        """Bits for each character, in blocks of `LENGTH` characters."""
        model.eval()
        codes = self._parts[part]
        blocks = codes[: (len(codes) - 1) // LENGTH * LENGTH + 1]
        batch = blocks[:-1].reshape(-1, LENGTH), blocks[1:].reshape(-1, LENGTH)
        return float(self.loss(model, batch)) / math.log(2)

    @property
    def example(self) -> Tensor:
        """One input."""
        return self._train[None, :LENGTH]


def _read(path: Path | None) -> str:
    if path is None:
        from pydoc_data.topics import topics

        return "\n".join(topics[name] for name in sorted(topics))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--text {path} cannot be read ({error}): give a text file in UTF-8.") from error
