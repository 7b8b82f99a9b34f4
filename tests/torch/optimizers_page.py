"""Makes the page docs/optimizers.md: ``python -m tests.torch.optimizers_page``.

It tries every optimizer of PyTorch, and of those other packages that are installed; what the page says of packages that
are not installed stays. A test makes sure that what it says of PyTorch's own is true.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_backends.torch.probe import Found, probe
from rigl_backends.torch.small_training import state_in
from rigl_backends.torch.state import keeps_zeros
from rigl_backends.torch.twin import Path as Keys
from rigl_backends.torch.twin import optimizers_in
from tests.torch.helpers import SCHEDULE, batch, rigl, same_bits, train_step
from tests.torch.optimizers import square_model

END = "<!-- end -->"
FILE = Path(__file__).parents[2] / "docs" / "optimizers.md"
OPTIONS: dict[str, dict[str, Any]] = {
    "ASGD": {"t0": 3},
    "Adagrad": {"initial_accumulator_value": 0.1},
    "RMSprop": {"momentum": 0.9},
    "SGD": {"momentum": 0.9},
    "SGD8bit": {"momentum": 0.9},
}
Make = Callable[[list[nn.Parameter]], Optimizer]
PACKAGES: dict[str, tuple[str, Callable[[Any], Iterator[tuple[str, Make]]]]] = {
    "timm": ("timm.optim", lambda timm: ((name, _by_name(timm, name)) for name in timm.list_optimizers())),
    "pytorch-optimizer": (
        "pytorch_optimizer",
        lambda package: _all_in(map(package.load_optimizer, package.get_supported_optimizers())),
    ),
    "schedulefree": ("schedulefree", lambda package: _all_in(vars(package).values())),
    "prodigyopt": ("prodigyopt", lambda package: _all_in(vars(package).values())),
    "bitsandbytes": ("bitsandbytes.optim", lambda package: _all_in(vars(package).values())),
    "torchao": ("torchao.optim", lambda package: _all_in(vars(package).values())),
}


def _by_name(timm: Any, name: str) -> Make:
    return lambda params: timm.create_optimizer_v2(params, opt=name, lr=1e-3)


def _all_in(values: Any) -> Iterator[tuple[str, Make]]:
    classes = {value.__name__: value for value in values if inspect.isclass(value) and issubclass(value, Optimizer)}
    for name in sorted(classes):
        if not name.startswith("_") and not classes[name].__module__.startswith("torch.optim"):
            yield name, _with_rate(classes[name])


def _with_rate(cls: Any) -> Make:
    takes_rate = "lr" in inspect.signature(cls.__init__).parameters
    return lambda params: cls(params, **({"lr": 1e-3} if takes_rate else {}), **OPTIONS.get(cls.__name__, {}))


# PyTorch's own optimizers, one by one.


def torch_table() -> str:
    """A row for each optimizer of `torch.optim`."""
    rows = ["| optimizer | state of each weight, and what a new weight gets | left alone | outside the masks |"]
    rows += ["|---|---|---|---|"]
    for name, cls in sorted(vars(torch.optim).items()):
        if inspect.isclass(cls) and issubclass(cls, Optimizer) and cls is not Optimizer:
            rows.append(_row(name, _with_rate(cls)))
    return "\n".join(rows)


def _row(name: str, make: Make) -> str:
    options = ", ".join(f"{key}={value}" for key, value in OPTIONS.get(name, {}).items())
    model = square_model()
    try:
        optimizer = make([model[2].weight])
        sparsify(model, optimizer, rigl(), include=["2.weight"], exclude=["0.*", "4.*"]).remove()
    except ValueError as error:
        return f"| {name} | refused: {_reason(error)} | | |"
    found = probe(optimizer, model[2].weight)
    stays = "stays as it is" if keeps_zeros(optimizer, {torch.float32}) else "made new after each step"
    shown = [f"{name}({options})" if options else name, _fresh(found), ", ".join(_names(found.others)), stays]
    return f"| {' | '.join(shown)} |"


def _reason(error: ValueError) -> str:
    text = str(error)
    own = text.partition(".weight': ")[2].partition(". Use an optimizer")[0]
    return own or text.partition(", so it")[0].removeprefix("optimizer is ")


def _names(paths: Any) -> list[str]:
    return sorted(f"`{'.'.join(path)}`" for path in paths)


def _fresh(found: Found) -> str:
    shown = {".".join(path): "its own value" if value is None else f"{value:g}" for path, value in found.fresh.items()}
    return ", ".join(f"`{name}` {value}" for name, value in sorted(shown.items())) or "none"


# Those of other packages, in a list.


def package_section(name: str) -> str | None:
    """What becomes of the optimizers of a package; None if it is not installed."""
    module, optimizers = PACKAGES[name]
    try:
        package = import_module(module)
    except ImportError:
        return None
    results: dict[str, list[str]] = {}
    for optimizer, make in optimizers(package):
        results.setdefault(outcome(make), []).append(optimizer)
    lines = [f"### {name} {metadata.version(name)}", ""]
    for result in sorted(results, key=lambda result: (result != WORKS, result)):
        lines.append(f"- {result}: {', '.join(results[result])}")
    return "\n".join(lines)


WORKS = "trained sparsely"


def outcome(make: Make) -> str:
    """What becomes of a short training: `WORKS`, or why not."""
    model = square_model()
    try:
        optimizer = make([param for param in model.parameters() if param.ndim == 2])
        getattr(optimizer, "train", lambda: None)()
        return _train(model, optimizer)
    except Exception:  # an optimizer may raise anything
        return "not tried, since it needs other options, models, closures or devices"


def _train(model: nn.Sequential, optimizer: Optimizer) -> str:
    try:
        sparse = sparsify(model, optimizer, rigl(dense=["4.*"]))
    except ValueError as error:
        return f"refused, since {_reason(error)}"
    broken = sorted(set(_broken_rules(model, optimizer, sparse)))
    return f"breaks {', '.join(broken)}" if broken else WORKS


def _broken_rules(model: nn.Sequential, optimizer: Optimizer, sparse: SparseTraining) -> Iterator[str]:
    """The rules that 30 steps break."""
    weight, dense = model[2].weight, model[4].weight
    fresh = probe(optimizer, weight).fresh
    for step in range(30):
        old, first = sparse.masks["2.weight"], [weight.detach().clone(), dense.detach().clone()]
        state = {path: tensor.clone() for path, tensor in state_in(optimizers_in(optimizer), dense).items()}
        train_step(model, optimizer, batch(step))
        new = sparse.masks["2.weight"]
        if weight[~new].any() or not _is_fresh(optimizer, weight, ~new, fresh):
            yield "V3"
        if SCHEDULE.fires(step):
            if not same_bits(first[0][old & new], weight[old & new]):
                yield "V4"
            if not same_bits([first[1], state], [dense.detach(), state_in(optimizers_in(optimizer), dense)]):
                yield "R1"


def _is_fresh(optimizer: Optimizer, weight: nn.Parameter, outside: Tensor, fresh: Mapping[Keys, Any]) -> bool:
    state = state_in(optimizers_in(optimizer), weight)
    held = [
        (state[path].reshape(-1, *weight.shape)[:, outside], value or 0)
        for path, value in fresh.items()
        if path in state
    ]
    return all(bool((values == torch.tensor(value, dtype=values.dtype)).all()) for values, value in held)


# The page.


def start(name: str) -> str:
    """The line before a part of the page."""
    return f"<!-- {name}: made by python -m tests.torch.optimizers_page -->\n"


def with_part(page: str, name: str, part: str) -> str:
    """The page with another text in one of its parts, which may be new."""
    before, found, after = page.partition(start(name))
    if not found:
        return f"{page.rstrip()}\n\n{start(name)}{part}\n{END}\n"
    return before + start(name) + part + "\n" + END + after.partition(END)[2]


def main() -> None:
    """Make the page anew."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    page = with_part(FILE.read_text(), "torch", torch_table())
    for name in PACKAGES:
        if (section := package_section(name)) is not None:
            page = with_part(page, name, section)
    FILE.write_text(page)


if __name__ == "__main__":
    main()
