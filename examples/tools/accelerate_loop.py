"""RigL with Hugging Face's Accelerate: sparsify before ``prepare``. ``save_state`` and ``load_state`` do the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from letters import Blocks, options_of, small_gpt2
from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import RigL, UpdateSchedule


class Training:
    """A small GPT-2 at 80 % sparsity, with gradients of two batches in every step."""

    def __init__(self, text: Path, steps: int, every: int) -> None:
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = small_gpt2()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        recipe = RigL(0.8, schedule=UpdateSchedule.for_training(steps, every=every))
        self.sparse: SparseTraining = sparsify(model, optimizer, recipe)  # the line that makes it sparse
        data = DataLoader(Blocks(text), batch_size=8, shuffle=True, drop_last=True)
        self.model, self.optimizer, self.data = self.accelerator.prepare(model, optimizer, data)

    def train(self, steps: int) -> float:
        """Train until so many steps are done; the loss of the last batch."""
        while True:
            for batch in self.data:
                with self.accelerator.accumulate(self.model):
                    loss = self.model(**batch).loss
                    self.accelerator.backward(loss)
                    if self.accelerator.sync_gradients:
                        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                if self.sparse.step == steps:
                    return loss.item()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print the loss and the density of each layer."""
    options = options_of(__doc__).parse_args(arguments)
    set_seed(0)
    training = Training(options.text, options.steps, options.every)
    print(f"loss {training.train(options.steps):.3f}")
    print(training.sparse.table)


if __name__ == "__main__":
    main()
