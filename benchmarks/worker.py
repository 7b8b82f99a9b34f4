"""A contender's process: it gets ready, then measures once for every line that it reads, and answers in JSON.

`processes.Worker` starts it: ``python worker.py '{"task": "update", "module": "torch", ...}'``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, process_time, thread_time
from typing import Any

import numpy as np

from contenders.protocol import Steps, Update
from floor import MemoryFloor
from resident import give_back_at_once, peak_extra_bytes
from subjects import Kernels

Answer = dict[str, Any]


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # else what libraries print would be read as an answer
    request = json.loads(sys.argv[1])
    measure = TASKS[request.pop("task")](**request)
    print(json.dumps("ready"), file=answers)
    for question in sys.stdin:
        print(json.dumps(measure(question.strip())), file=answers)


def seconds_of(act: Callable[[], object], clock: Callable[[], float] = perf_counter) -> float:
    """The seconds that one call takes."""
    start = clock()
    act()
    return clock() - start


def memory(module: str, shapes: Any, momentum: bool, options: Mapping[str, bool]) -> Callable[[str], Answer]:
    """Measure the peak memory of updates; in JAX, minus that of a dense step with the same gradients."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # with oneDNN, TensorFlow keeps all that it has freed
    give_back_at_once()
    kernels = Kernels.of(shapes, momentum)
    within = {"within": True} if module == "jax" else {}
    sparse = _update(module, kernels, {**options, **within})
    dense = [_update(module, kernels, {"dense": True, **within})] if within else []
    warm_up(sparse)
    for contender in dense:
        contender.move()
    check_that_memory_shows(sparse, kernels)

    def peak_of(contender: Update) -> int:
        contender.prepare()
        return peak_extra_bytes(contender.move)

    def measure(_: str) -> Answer:
        return {"bytes": peak_of(sparse) - sum(map(peak_of, dense)), "layer": 4 * max(kernels.sizes)}

    return measure


def check_that_memory_shows(contender: Update, kernels: Kernels) -> None:
    """Fail if new arrays take memory that an allocator has kept: an update would find its memory there, too."""
    contender.copies()
    seen, expected = peak_extra_bytes(contender.copies), 4 * sum(kernels.sizes)
    if seen < expected / 2:
        raise RuntimeError(
            f"copies of all gradients took {seen} bytes instead of {expected}: an allocator keeps memory, so that the "
            "peak of an update would not show."
        )


def update(module: str, shapes: Any, momentum: bool, options: Mapping[str, bool]) -> Callable[[str], Answer]:
    """Measure the time of updates; the memory floor is measured before and after each."""
    kernels = Kernels.of(shapes, momentum)
    contender = _update(module, kernels, options)
    floor, weights = MemoryFloor(), sum(kernels.sizes)
    warm_up(contender)
    contender.prepare()
    usual = seconds_of(contender.move)

    def measure(_: str) -> Answer:
        contender.prepare()
        around = min(usual / 2, 1)
        before = floor.seconds(weights, momentum, around)
        seconds = seconds_of(contender.move)
        return {"seconds": seconds, "floor": (before + floor.seconds(weights, momentum, around)) / 2}

    return measure


def warm_up(contender: Update) -> None:
    """Make two steps. Fail unless the second moves as many connections as it should: doing nothing must not win."""
    contender.move()
    contender.prepare()
    before = contender.masks()
    contender.prepare()
    contender.move()
    after = contender.masks()
    moved = sum(int(np.count_nonzero(before[name] & ~after[name])) for name in before)
    active = sum(int(np.count_nonzero(mask)) for mask in after.values())
    if active != sum(int(np.count_nonzero(mask)) for mask in before.values()) or not 0.05 < moved / active < 0.3:
        raise RuntimeError(f"the update moved {moved} of {active} connections: it is not what it should be.")


def compiling(module: str, shapes: Any, momentum: bool, options: Mapping[str, bool]) -> Callable[[str], Answer]:
    """Measure the first step minus a later one, of the optimizer alone and of the sparse training."""
    kernels = Kernels.of(shapes, momentum)

    def measure(_: str) -> Answer:
        dense, sparse = (_update(module, kernels, {**options, "dense": dense}) for dense in (True, False))
        first = [seconds_of(dense.move), seconds_of(sparse.move)]
        later = [min(seconds_of(contender.move) for _ in range(3)) for contender in (dense, sparse)]
        return {"dense": first[0] - later[0], "sparse": first[1] - later[1], "traces": sparse.traces}  # type: ignore[attr-defined]

    return measure


def steps(module: str, model: str, optimizer: str) -> Callable[[str], Answer]:
    """Measure pairs of a dense and a sparse step; dense and sparse go first in turn."""
    contender: Steps = importlib.import_module(f"contenders.{module}_steps").make(model, optimizer)
    for _ in range(5):
        contender.dense()
        contender.sparse()

    def measure(pairs: str) -> Answer:
        dense, sparse = [], []
        for pair in range(int(pairs)):
            timings = [(dense, contender.dense), (sparse, contender.sparse)]
            for taken, step in timings if pair % 2 else reversed(timings):
                taken.append(seconds_of(step))
        return {"dense": dense, "sparse": sparse}

    return measure


def device(module: str, model: str, optimizer: str, device: str, kinds: Sequence[str]) -> Callable[[str], Answer]:
    """Measure steps of trainings on a device: of each kind as many as asked for, of which only the last one waits."""
    from contenders.recipes import always_moving, moving_later

    recipes = {"dense": None, "sparse": moving_later(), "update": always_moving()}
    contender = importlib.import_module(f"contenders.{module}_steps")
    steps = {kind: contender.train(model, optimizer, recipes[kind], device) for kind in kinds}

    def take(kind: str, count: int) -> None:
        for number in range(1, count + 1):
            steps[kind](wait=number == count)

    def measure(count: str) -> Answer:
        seconds = {kind: seconds_of(lambda kind=kind: take(kind, int(count))) / int(count) for kind in kinds}
        return {"seconds": seconds, "bytes": contender.peak_bytes(device), "name": contender.device_name(device)}

    measure("5")
    return measure


def _products(contender: str, baseline: str, layer: Mapping[str, float]) -> tuple[Callable[[], object], ...]:
    if contender.startswith("jax"):
        from contenders import sparse_jax

        return sparse_jax.make(contender, baseline, layer)
    if contender.startswith("tf"):
        from contenders import sparse_tf

        return sparse_tf.make(contender, baseline, layer)
    from contenders import sparse_convolutions, sparse_peers, sparse_products, sparse_serving, sparse_steps

    kinds = sparse_convolutions, sparse_peers, sparse_serving, sparse_steps, sparse_products
    return next(made for kind in kinds if (made := kind.make(contender, baseline, layer)) is not None)


def products(contender: str, baseline: str, layer: Mapping[str, float]) -> Callable[[str], Answer]:
    """Measure the products of a layer and what they are compared with: one thread by CPU time, several by wall time."""
    made = _products(contender, baseline, layer)
    acts = dict(zip(("contender", "baseline"), made, strict=True))
    has_threads = contender.startswith(("jax", "tf"))  # XLA and TensorFlow work in threads of their own
    one_thread = process_time if has_threads else thread_time
    clock = one_thread if layer["threads"] == 1 else perf_counter
    for act in acts.values():
        act()

    def measure(repetitions: str) -> Answer:
        taken: dict[str, list[float]] = {name: [] for name in acts}
        for _ in range(int(repetitions)):
            for name, act in acts.items():
                taken[name].append(seconds_of(act, clock))
        return taken

    return measure


def _update(module: str, kernels: Kernels, options: Mapping[str, bool]) -> Update:
    contender: Update = importlib.import_module(f"contenders.{module}_update").Update(kernels, **options)
    return contender


TASKS: Mapping[str, Callable[..., Callable[[str], Answer]]] = {
    "update": update,
    "memory": memory,
    "compiling": compiling,
    "steps": steps,
    "device": device,
    "products": products,
}

if __name__ == "__main__":
    main()
