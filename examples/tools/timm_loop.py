"""RigL in a training script of timm's kind: a model and an optimizer by name, a cosine schedule, an average (EMA)."""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional

from images import accuracy, batches, options_of, read
from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import RigL, UpdateSchedule


def main(arguments: Sequence[str] | None = None) -> tuple[nn.Module, nn.Module, SparseTraining]:
    """Train, print the accuracy of the average and the density of each layer; the model, its average, the handle."""
    parser = options_of(__doc__)
    parser.add_argument("--model", default="test_resnet", metavar="NAME", help="any of timm's models (%(default)s)")
    parser.add_argument("--opt", default="adamw", metavar="NAME", help="any of timm's optimizers (%(default)s)")
    options, data = read(parser, arguments)
    torch.manual_seed(0)
    model = timm.create_model(options.model, in_chans=1, num_classes=data.n_classes)
    optimizer = create_optimizer_v2(model, opt=options.opt, lr=3e-3, weight_decay=0.05)
    scheduler = CosineLRScheduler(optimizer, options.steps, warmup_t=options.steps // 10, t_in_epochs=False)
    recipe = RigL(0.9, schedule=UpdateSchedule.for_training(options.steps, every=20))
    sparse = sparsify(model, optimizer, recipe)  # the line that makes it sparse
    average = ModelEmaV3(model, decay=0.95)

    for step, (images, labels) in enumerate(batches(data, options.steps), start=1):
        optimizer.zero_grad()
        logits = model(torch.from_numpy(images).reshape(-1, 1, *data.picture_shape))
        functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
        optimizer.step()
        scheduler.step_update(step)
        average.update(model, step)

    sparse.zero_outside(average)  # it also holds connections that were active before
    with torch.no_grad():
        logits = average.eval()(torch.from_numpy(data.test_images).reshape(-1, 1, *data.picture_shape))
    print(f"test accuracy {accuracy(logits, data.test_labels):.3f}")
    print(sparse.table)
    return model, average, sparse


if __name__ == "__main__":
    main()
