"""RigL in Hugging Face's Trainer: give it the optimizer that was sparsified. Its checkpoints hold the topology."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from letters import Blocks, options_of, small_gpt2
from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import RigL, UpdateSchedule


def make_trainer(text: Path, steps: int, every: int, folder: str, **options: Any) -> tuple[Trainer, SparseTraining]:
    """A trainer of a small GPT-2 at 80 % sparsity, and the handle; ``options`` are for TrainingArguments."""
    model = small_gpt2()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    recipe = RigL(0.8, schedule=UpdateSchedule.for_training(steps, every=every))
    sparse = sparsify(model, optimizer, recipe)  # the line that makes it sparse
    common = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 16}
    settings = TrainingArguments(folder, max_steps=steps, **{"save_strategy": "no", **common, **options})
    return Trainer(model, settings, train_dataset=Blocks(text), optimizers=(optimizer, None)), sparse


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print the loss and the density of each layer."""
    options = options_of(__doc__).parse_args(arguments)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        trainer, sparse = make_trainer(options.text, options.steps, options.every, folder)
        result = trainer.train()
    print(f"loss {result.training_loss:.3f} in the mean over the training")
    print(sparse.table)


if __name__ == "__main__":
    main()
