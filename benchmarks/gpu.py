"""Measure steps of one framework on a GPU, as ratios to the dense step, and write gpu.md: ``nox -s gpu``."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from importlib import metadata
from pathlib import Path
from typing import Any

from processes import Worker, running
from steps import MODELS

PACKAGES = {"torch": ("torch",), "jax": ("jax", "optax", "flax")}
KINDS = ("dense", "sparse", "update")
PAGE = """# On a GPU

`nox -s gpu` runs the conformance suite of PyTorch and JAX on a GPU, and then writes this page. A step is forward,
backward and optimizer step (Adam). *sparse* is an ordinary step at 90 % sparsity, by ERK; in *update* the topology
moves at every step. All are measured in turns in one process, {steps} steps at a time, of which only the last one waits
for the device; figures are medians of {rounds} such turns, as ratios to the dense step. Memory is the peak of a process
that does nothing else, as the framework counts it.

{machines}

| framework | model | dense step, ms | sparse | update | dense memory, MB | sparse | update |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}
"""


def main() -> None:
    """Measure, and write the page and, beside it, a JSON file with the figures of both frameworks."""
    options = parse()
    rounds, steps = (2, 3) if options.quick else (15, 20)
    models = MODELS[:1] if options.quick else MODELS
    record = {
        "rounds": rounds,
        "steps": steps,
        "versions": {"Python": platform.python_version()}
        | {package: metadata.version(package) for package in PACKAGES[options.framework]},
        "models": {model: measure(options.framework, model, options.device, rounds, steps) for model in models},
    }
    stored = options.output.with_suffix(".json")
    records = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    records[options.framework] = record
    options.output.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    options.output.write_text(page(records), encoding="utf-8")
    print(page(records))


def measure(framework: str, model: str, device: str, rounds: int, steps: int) -> dict[str, Any]:
    """The medians of a model's steps, and the peak memory of each kind of step where the framework counts it."""
    request = {"task": "device", "module": framework, "model": model, "optimizer": "fused Adam", "device": device}
    together = Worker({**request, "kinds": KINDS})
    with running([together]):
        answers = [together.ask(str(steps)) for _ in range(rounds)]
    seconds = {kind: [answer["seconds"][kind] for answer in answers] for kind in KINDS}
    ratios = {kind: [a / b for a, b in zip(seconds[kind], seconds["dense"], strict=True)] for kind in KINDS[1:]}
    return {
        "device": answers[0]["name"],
        "dense": statistics.median(seconds["dense"]),
        "ratios": {kind: statistics.median(values) for kind, values in ratios.items()},
        "bytes": None if answers[0]["bytes"] is None else {kind: peak_of(request, kind) for kind in KINDS},
    }


def peak_of(request: dict[str, Any], kind: str) -> int:
    """The peak memory of a process that makes one kind of steps."""
    alone = Worker({**request, "kinds": [kind]})
    with running([alone]):
        peak: int = alone.ask("5")["bytes"]
    return peak


def page(records: dict[str, Any]) -> str:
    """The page with the records of all frameworks that were measured."""
    any_record = next(iter(records.values()))
    machines = [
        f"{framework}: {', '.join(sorted({own['device'] for own in record['models'].values()}))}; "
        + ", ".join(f"{package} {version}" for package, version in record["versions"].items())
        for framework, record in records.items()
    ]
    rows = [
        _row(framework, model, own) for framework, record in records.items() for model, own in record["models"].items()
    ]
    return PAGE.format(
        rounds=any_record["rounds"], steps=any_record["steps"], machines="\n".join(machines), rows="\n".join(rows)
    )


def _row(framework: str, model: str, own: dict[str, Any]) -> str:
    step = f"{1e3 * own['dense']:.2f}"
    ratios = [f"{own['ratios'][kind]:.2f} x" for kind in KINDS[1:]]
    memory = ["not counted", "", ""]
    if own["bytes"] is not None:
        dense, *others = (own["bytes"][kind] for kind in KINDS)
        memory = [f"{dense / 1e6:.1f}", *(f"{peak / dense:.2f} x" for peak in others)]
    return f"| {' | '.join([framework, model, step, *ratios, *memory])} |"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="gpu.py", description=__doc__)
    parser.add_argument("framework", choices=list(PACKAGES))
    parser.add_argument("--device", default="cuda", help="where the arrays are; cpu shows that the script works")
    parser.add_argument("--quick", action="store_true", help="one model, few steps")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("gpu.md"), help="the page to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
