"""One training: the network, its optimizer and topology, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset

import measured_results as measured
from arguments import Options
from checkpoints import read, write, write_json
from data_order import Batches, Repeatable, seed_of
from image_folders import Images
from processes import Process
from rigl_backends.torch import describe, sparsify
from rigl_core import Recipe
from sparse_methods import DENSE, DISTRIBUTIONS, make_recipe

MOMENTUM = 0.9


class Training:
    """A training that can be stopped after any step. Made as new, or as its checkpoint left it.

    Args:
        options: of the command line.
        images: what it learns from.
        process: this process among all.

    Raises:
        CheckpointError, ValueError: naming the option.
    """

    def __init__(self, options: Options, images: Images, process: Process) -> None:
        self.options, self.images, self.process = options, images, process
        self.step, self.history = 0, list[dict[str, Any]]()
        _check_batch(options, images, process)
        self.per_epoch = images.n_train // options.batch
        self.dense_steps = options.epochs * self.per_epoch
        self.steps = max(1, round(options.multiply * options.epochs)) * self.per_epoch
        torch.manual_seed(options.seed)
        self.model = options.experiment.network(images.classes)
        self.network = describe(self.model, torch.zeros(1, 3, options.pixels, options.pixels))
        self.model.to(process.device)
        self.optimizer = self._make_optimizer()
        recipe = self._make_recipe()
        self.sparse = None if recipe is None else sparsify(self.model, self.optimizer, recipe)
        self._resume()
        self._trained = self._wrapped()

    @property
    def end(self) -> int:
        """The step at which to stop."""
        return min(self.steps, self.options.steps or self.steps)

    def __iter__(self) -> Iterator[int]:
        """Train. Each step gives the number of steps so far; checkpoints and results are written on the way."""
        for images, labels in self._batches():
            self._learn(images, labels)
            self.step += 1
            if self.step % self.per_epoch == 0 or self.step == self.end:
                self._finish_epoch()
            elif self.options.checkpoint_every and self.step % self.options.checkpoint_every == 0:
                self._save()
            yield self.step

    def results(self) -> dict[str, Any]:
        """What results.json holds; its last part is what was measured after each epoch."""
        last = self.history[-1]
        return {
            "training": self.options.training,
            "step": self.step,
            "steps": self.steps,
            "accuracy": last["accuracy"],
            "total": measured.in_all(self.network, self.sparse),
            "costs": measured.costs(self.network, self.sparse, self.steps, self.dense_steps),
            "layers": measured.of_layers(self.network, self.sparse),
            "processes": self.process.world,
            "device": self.process.device.type,
            "torch": torch.__version__,
            "history": self.history,
        }

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """SGD with Nesterov's momentum. As in the authors' code, L2 is of kernels, not of biases and norms."""
        kernels = [param for param in self.model.parameters() if param.ndim > 1]
        others = [param for param in self.model.parameters() if param.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": kernels, "weight_decay": self.options.experiment.l2},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=0.1, momentum=MOMENTUM, nesterov=True)

    def _make_recipe(self) -> Recipe | None:
        options = self.options
        if options.method == DENSE:
            return None
        return make_recipe(
            options.method,
            options.sparsity,
            options.experiment,
            self.steps,
            options.every,
            distribution=DISTRIBUTIONS[options.distribution],
            dense=options.dense,
            seed=options.seed,
        )

    def _wrapped(self) -> Any:
        trained: Any = self.model
        if self.process.world > 1:
            trained = DistributedDataParallel(trained)
        return torch.compile(trained, backend=self.options.compile) if self.options.compile else trained

    def _batches(self) -> DataLoader[Any]:
        """The rest of the training, in one go: workers read ahead over the ends of epochs."""
        options, process = self.options, self.process
        numbers = (self.images.n_train, options.batch, options.seed, self.step, self.end, process.rank, process.world)
        return self._loader(Repeatable(self.images.train, options.seed), batch_sampler=Batches(*numbers))

    def _loader(self, dataset: Any, **how: Any) -> DataLoader[Any]:
        pinned = self.process.device.type == "cuda"
        return DataLoader(dataset, num_workers=self.options.workers, pin_memory=pinned, **how)

    def _learn(self, images: Tensor, labels: Tensor) -> None:
        options, process = self.options, self.process
        torch.manual_seed(seed_of(options.seed, self.step, process.rank))  # of dropout
        for group in self.optimizer.param_groups:
            group["lr"] = options.experiment.learning_rate_at(self.step, self.steps, options.batch)
        self.optimizer.zero_grad()
        with torch.autocast(process.device.type, torch.bfloat16, enabled=options.amp):
            logits = self._trained(images.to(process.device, non_blocking=True))
        labels = labels.to(process.device, non_blocking=True)
        smoothing = options.experiment.label_smoothing
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _finish_epoch(self) -> None:
        self.process.share_buffers(self.model)
        record = {"epoch": self.step / self.per_epoch, "step": self.step, "accuracy": self._test()}
        self.history = [each for each in self.history if each["step"] % self.per_epoch == 0]  # not of earlier stops
        self.history.append(record | measured.in_all(self.network, self.sparse))
        self._save()
        if self.process.first:
            write_json(self.options.folder / "results.json", self.results())

    @torch.no_grad()
    def _test(self) -> float:
        """The share of test images that the network classifies correctly; each process tests a part of them."""
        process, right = self.process, 0
        part = Subset(self.images.test, range(process.rank, self.images.n_test, process.world))
        self.model.eval()
        for images, labels in self._loader(part, batch_size=self.options.batch // process.world):
            with torch.autocast(process.device.type, torch.bfloat16, enabled=self.options.amp):
                logits = self.model(images.to(process.device, non_blocking=True))
            right += int((logits.argmax(1).cpu() == labels).sum())
        self.model.train()
        return process.total(right)[0] / self.images.n_test

    def _save(self) -> None:
        if self.process.first:
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            told = {"training": self._told(), "step": self.step, "history": self.history}
            write(self.options.folder / "checkpoint.pt", state | told)

    def _resume(self) -> None:
        saved = read(self.options.folder / "checkpoint.pt", self._told())
        if saved is not None:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])  # the topology is in it
            self.step, self.history = saved["step"], saved["history"]

    def _told(self) -> dict[str, Any]:
        return self.options.training | {"data": str(self.images)}


def _check_batch(options: Options, images: Images, process: Process) -> None:
    if options.batch > images.n_train:
        raise ValueError(f"--batch is {options.batch:,}, and --data has {images}: give a smaller batch.")
    if options.batch % process.world:
        raise ValueError(f"--batch is {options.batch:,}: it must be a multiple of the {process.world} processes.")
