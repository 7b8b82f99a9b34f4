"""Ordinary steps, at which no topology moves: what a sparse training adds to the dense step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from processes import Worker, in_turns, running
from results import Result
from settings import Settings

MODELS = ("mlp", "convnet", "gru", "transformer")
SUBJECTS: tuple[tuple[str, str, str, float | None], ...] = (
    ("torch", "torch", "momentum", 1.10),
    ("torch", "torch", "fused Adam", 1.15),
    ("torch", "torch", "Adam", None),
    ("JAX, jit", "jax", "momentum", 1.05),
    ("JAX, jit", "jax", "Adam", 1.05),
    ("TF, function", "tf", "momentum", 1.05),
    ("TF, function", "tf", "Adam", 1.05),
    ("rigl-torch", "rigl_torch", "momentum", None),
    ("rigl-torch", "rigl_torch", "fused Adam", None),
)
"""Contender, module, optimizer, target. PyTorch's default Adam has no target: it is slower on zeros."""


def measure(settings: Settings) -> list[Result]:
    """Medians over pairs of steps, for every model. A quick run measures only the first model."""
    results: list[Result] = []
    for model in MODELS[:1] if settings.quick else MODELS:
        results += _measure(model, settings)
    return results


def _measure(model: str, settings: Settings) -> list[Result]:
    subjects = [
        subject for subject in SUBJECTS if subject[1] != "rigl_torch" or (settings.rigl_torch and model != "gru")
    ]
    if settings.quick:
        subjects = [subject for subject in subjects if subject[2] != "Adam"]
    workers = [
        Worker({"task": "steps", "module": module, "model": model, "optimizer": optimizer}, settings.python_of(module))
        for _, module, optimizer, _ in subjects
    ]
    with running(workers):
        answers = in_turns(workers, settings.rounds(12, 4), "10")
    results = [
        _overhead(name, f"{model}, {optimizer}", target, own)
        for (name, _, optimizer, target), own in zip(subjects, answers, strict=True)
    ]
    return [_compared(result, results) for result in results]


def _overhead(name: str, subject: str, target: float | None, answers: Sequence[dict[str, list[float]]]) -> Result:
    dense, sparse = ([seconds for answer in answers for seconds in answer[kind]] for kind in ("dense", "sparse"))
    ratio = statistics.median(there / here for there, here in zip(sparse, dense, strict=True))
    facts = {"x dense, minima": min(sparse) / min(dense)}
    return Result("ordinary step", name, subject, ratio, "x dense", ratio, target, sparse, dense, facts)


def _compared(result: Result, all_results: Sequence[Result]) -> Result:
    """The result with its overhead divided by rigl-torch's. The target of this share is 0.5."""
    for other in all_results:
        if other.contender == "rigl-torch" and other.subject == result.subject and result.contender == "torch":
            share = (result.ratio - 1) / max(other.ratio - 1, 1e-3)
            return replace(result, facts={**result.facts, "of rigl-torch's overhead": share})
    return result
