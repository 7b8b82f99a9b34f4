"""RigL in PyTorch Lightning: one line in ``configure_optimizers``. No callback is needed, also for checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from images import BATCH, accuracy, options_of, read
from rigl_backends.torch import sparsify
from rigl_core import RigL, UpdateSchedule
from rigl_core.inspect import scalars


class Classifier(lightning.LightningModule):
    """An MLP at 90 % sparsity."""

    def __init__(self, pixels: int, classes: int, steps: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, classes)
        )
        self.recipe = RigL(0.9, schedule=UpdateSchedule.for_training(steps, every=20))

    def configure_optimizers(self) -> Optimizer:
        """The optimizer; Lightning saves and loads the topology with its state."""
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3)
        self.sparse = sparsify(self.network, optimizer, self.recipe)  # the line that makes it sparse
        return optimizer

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        """The loss of a batch; it is the same without RigL."""
        images, labels = batch
        return functional.cross_entropy(self.network(images), labels)

    def on_train_epoch_end(self) -> None:
        """Log the density of each layer, to any logger."""
        self.log_dict(scalars(self.sparse.masks))


def main(arguments: Sequence[str] | None = None) -> Classifier:
    """Train, and print the test accuracy and the density of each layer."""
    parser = options_of(__doc__)
    parser.add_argument("--log", metavar="FOLDER", help="write densities there, as CSV")
    options, data = read(parser, arguments)
    lightning.seed_everything(0, verbose=False)
    model = Classifier(data.train_images.shape[1], data.n_classes, options.steps)
    training_data = TensorDataset(torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels))
    trainer = lightning.Trainer(
        max_steps=options.steps,
        accelerator="cpu",
        log_every_n_steps=10,
        logger=CSVLogger(options.log) if options.log else False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(training_data, batch_size=BATCH, shuffle=True))
    with torch.no_grad():
        logits = model.network(torch.from_numpy(data.test_images))
    print(f"test accuracy {accuracy(logits, data.test_labels):.3f}")
    print(model.sparse.table)
    return model


if __name__ == "__main__":
    main()
