"""RigL with ``torch.compile``: sparsify the bare model, then compile. Updates of the topology compile nothing anew."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from images import accuracy, batches, options_of, read
from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import RigL, UpdateSchedule


def main(arguments: Sequence[str] | None = None) -> tuple[nn.Module, SparseTraining]:
    """Train, and print the test accuracy and the density of each layer; the model and the handle."""
    parser = options_of(__doc__)
    parser.add_argument("--compiler", default="inductor", metavar="NAME", help="of torch.compile (%(default)s)")
    options, data = read(parser, arguments)
    torch.manual_seed(0)
    pixels = data.train_images.shape[1]
    model = nn.Sequential(
        nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, data.n_classes)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    recipe = RigL(0.9, schedule=UpdateSchedule.for_training(options.steps, every=20))
    sparse = sparsify(model, optimizer, recipe)  # the bare model: torch.compile changes the names of its layers

    @torch.compile(backend=options.compiler)
    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(model(images), labels)

    for images, labels in batches(data, options.steps):
        optimizer.zero_grad()
        loss_of(torch.from_numpy(images), torch.from_numpy(labels)).backward()
        optimizer.step()

    with torch.no_grad():
        logits = model(torch.from_numpy(data.test_images))
    print(f"test accuracy {accuracy(logits, data.test_labels):.3f}")
    print(sparse.table)
    return model, sparse


if __name__ == "__main__":
    main()
