"""The products of a truly sparse layer, against the dense products of torch with the same threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from processes import Worker, in_turns, running
from results import Result
from settings import Settings

LAYER = (2048, 128)
DENSITIES = (0.2, 0.1, 0.05, 0.02, 0.01)
FEATURE_MAJOR = (2.5, 5, 8.5, 15, 18)
BATCH_MAJOR = (2.3, 3.8, 5.5, 8.5, 10)
"""How many times as fast as dense the kernels must be, at each of the densities."""
TWO_THREADS = 1.6
TINY = (64, 16)
"""The layer that shows what a call takes besides its products."""
SIZES, BATCHES, DENSEST = (512, 1024, 2048, 4096), (32, 128, 512), 0.2
"""Where the kernels must not be slower than dense."""
STEPS = {0.1: 5, 0.05: 8, 0.01: 15}
"""How many times as fast as the dense one a step of the MLP must be, by density."""
CONVOLUTIONS = ((256, 256, 3, 14, 8), (128, 128, 3, 28, 4), (512, 512, 3, 7, 16), (1024, 256, 1, 14, 8))
"""Inputs, outputs, the side of the kernel and that of the planes, and the batch."""
BLOCK_OF_TRANSFORMER = 1.5
BLOCK_TARGET = 2.0
"""The most that a block of a dense gradient may take, in times of BLAS, which has one operation where sums have two."""


@dataclass(frozen=True)
class Case:
    """A contender, what it is compared with, and the layer; the target is the most that it may take, as a ratio."""

    benchmark: str
    name: str
    contender: str
    baseline: str
    size: int
    batch: int
    density: float
    threads: int = 1
    target: float | None = None
    shape: str | None = None
    """What the layer is, if it has not as many outputs as inputs."""

    def start(self) -> Worker:
        """Start a process that measures both in turns."""
        layer = {"size": self.size, "batch": self.batch, "density": self.density, "threads": self.threads}
        return Worker({"task": "products", "contender": self.contender, "baseline": self.baseline, "layer": layer})

    def result(self, answers: Sequence[dict[str, list[float]]]) -> Result:
        """The ratio of the shortest times."""
        own, baseline = ([time for answer in answers for time in answer[key]] for key in ("contender", "baseline"))
        ratio = min(own) / min(baseline)
        unit = f"x {self.baseline}"
        facts = {"times as fast": 1 / ratio} | ({"wanted": 1 / self.target} if self.target else {})
        return Result(self.benchmark, self.name, self._subject, ratio, unit, ratio, self.target, own, baseline, facts)

    @property
    def _subject(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        layer = f"{self.shape or f'{self.size}²'}, batch {self.batch}"
        return f"{layer}, {threads}" if self.density == 0 else f"{layer}, density {self.density:g}, {threads}"


def measure(settings: Settings) -> list[Result]:
    """The ratios of all cases. A quick run measures two densities, and no other sizes."""
    results = []
    for cases in _groups(settings.quick):
        workers = [case.start() for case in cases]
        with running(workers):
            answers = in_turns(workers, settings.rounds(10, 3), "3")
        results += [case.result(own) for case, own in zip(cases, answers, strict=True)]
    return results


def _groups(quick: bool) -> Iterator[list[Case]]:
    """The cases that are measured in turns."""
    targets = list(zip(DENSITIES, FEATURE_MAJOR, BATCH_MAJOR, strict=True))
    for density, feature_major, batch_major in targets[1::2] if quick else targets:
        layer = (*LAYER, density)
        yield [
            Case("sparse", "numba, feature-major", "feature-major", "dense", *layer, target=1 / feature_major),
            Case("sparse", "numba, batch-major", "batch-major", "dense", *layer, target=1 / batch_major),
            Case("sparse", "torch CSR", "CSR", "dense", *layer),
            Case("sparse", "sparselab 0.2.2", "sparselab", "dense", *layer),
        ]
        yield [Case("sparse", "numba, feature-major", "feature-major", "dense", *layer, 2)]
        yield [Case("sparse threads", "numba", "feature-major", "one thread", *layer, 2, 1 / TWO_THREADS)]
    for size in () if quick else SIZES:
        for batch in BATCHES:
            yield [Case("sparse sizes", "numba", "feature-major", "dense", size, batch, DENSEST, target=1)]
    for density in DENSITIES[1::2] if quick else DENSITIES:
        yield [Case("sparse jax", "JAX, active weights", "jax active", "jax dense", *LAYER, density)]
    yield [Case("sparse call", "JAX, active weights", "jax active", "jax kernels", *TINY, 0.1)]
    yield from _tensorflow(quick)
    yield [Case("sparse block", "numba", "products", "BLAS", 4096, 128, 0, target=BLOCK_TARGET)]
    for density in () if quick else (0.1, 0.01):
        yield [Case("sparse update", "numba", "update", "dense product", 4096, 128, density)]
    yield from _convolutions(quick)
    yield from _serving(quick)
    if not quick:
        yield from _steps()


def _convolutions(quick: bool) -> Iterator[list[Case]]:
    """Convolutions, with all copies that their kernels need; at the largest density they must pay."""
    for inputs, outputs, kernel, side, batch in CONVOLUTIONS[:1] if quick else CONVOLUTIONS:
        shape = f"{inputs}→{outputs}, {kernel}x{kernel}, {side}²"
        for density in (0.1,) if quick else (0.2, 0.1, 0.05, 0.01):
            contender, target = f"convolution {inputs} {outputs} {kernel} {side}", 1 if density == DENSEST else None
            own = Case("sparse convolution", "torch, active weights", contender, "dense", side, batch, density)
            jax = replace(own, name="JAX, active weights", contender=f"jax {contender}", baseline="jax dense")
            for case in (own, jax):
                yield [replace(case, target=target, shape=shape)]


def _tensorflow(quick: bool) -> Iterator[list[Case]]:
    """Layers of Keras, which TensorFlow calls as functions of NumPy."""
    for density in DENSITIES[1::2] if quick else DENSITIES:
        yield [Case("sparse tf", "TensorFlow, active weights", "tf active", "tf dense", *LAYER, density)]
    for inputs, outputs, kernel, side, batch in () if quick else CONVOLUTIONS[::2]:
        contender = f"convolution {inputs} {outputs} {kernel} {side}"
        shape = f"{inputs}→{outputs}, {kernel}x{kernel}, {side}²"
        for density in (0.1, 0.01):
            own = Case("sparse tf", "TensorFlow, active weights", f"tf {contender}", "tf dense", side, batch, density)
            yield [replace(own, shape=shape)]


def _serving(quick: bool) -> Iterator[list[Case]]:
    """A trained layer that is used."""
    for batch in (8,) if quick else (1, 8, 32):
        for density in (0.1, 0.01):
            yield [
                Case("sparse serving", name, contender, "dense inference", 4096, batch, density)
                for name, contender in (("rigl_core.serving", "serving"), ("torch CSR module", "CSR module"))
            ]


def _steps() -> Iterator[list[Case]]:
    """Whole training steps, with masks and with active weights alone."""
    for density, times in STEPS.items():
        mlp = (4096, 128, density)
        yield [Case("sparse step", "MLP, active weights", "mlp active", "dense", *mlp, target=1 / times)]
    yield [Case("sparse step", "MLP, masks", "mlp masks", "dense", 4096, 128, 0.1)]
    block = (512, 8, 0.1)
    yield [
        Case(
            "sparse step",
            "transformer, active weights",
            "transformer active",
            "dense",
            *block,
            target=1 / BLOCK_OF_TRANSFORMER,
        )
    ]
