"""The page: claims, tables and pictures, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import paths
import prose
import tuned
from cases import COMPARED, METHODS, MOVING, Setting
from figures import Figures, Key, mean, spread
from statements import Claim, claims, on_landscape, reasons
from walks import View

MEASURES = {"images": "test accuracy, %", "text": "bits a character"}


@dataclass(frozen=True)
class About:
    """What the page says of the run.

    Attributes:
        steps: optimizer steps by task.
        settings: tuned hyper-parameters.
        every: ΔT.
        updates: number of updates of a training on images.
        landscape: the sparsity of the networks in the landscape.
        names: names of the data, by task.
    """

    steps: Mapping[str, int]
    settings: Mapping[tuned.Name, Setting]
    every: int
    updates: int
    landscape: float
    names: Mapping[str, str]


def page(figures: Figures, views: Sequence[View], about: About, pictures: str) -> str:
    """The whole page; ``pictures`` is the folder of the pictures, as the page links to it."""
    parts = ["# What holds on small networks", prose.INTRODUCTION.format(**about.steps)]
    if found := claims(figures) + (on_landscape(views, about.landscape) if views else []):
        parts += ["## Claim by claim", _claims(found, reasons(figures, about.updates))]
    if any(key.task == "images" for key in figures):
        parts += _images(figures, about, pictures)
    if any(key.task == "text" for key in figures):
        parts += _text(figures, about)
    if views:
        parts += _landscape(views, about, pictures)
    parts += _hyper_parameters(about)
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, marks, *rows))


def _claims(found: Sequence[Claim], known: Mapping[str, str]) -> str:
    rows, needed = [], set[str]()
    for claim in found:
        because = () if claim.verdict == "holds" else claim.because
        needed |= set(because)
        see = f"; see *{', '.join(because)}*" if because else ""
        gains = "<br>".join(map(str, claim.comparisons))
        rows.append(f"| {claim.says} ({claim.source}){see} | **{claim.verdict}** | {gains} |")
    return "\n".join(
        [
            prose.CLAIMS,
            "",
            "| Claim | Here | Gain at each sparsity |",
            "|---|---|---|",
            *rows,
            *(f"\n*{name.capitalize()}*: {text}" for name, text in known.items() if name in needed),
        ]
    )


def _images(figures: Figures, about: About, pictures: str) -> list[str]:
    return [
        f"## Images: {about.names['images']}",
        prose.IMAGES,
        f"![Accuracy against the cost of the training]({pictures}/claims_costs.png)",
        *_by_sparsity(figures, "images"),
    ]


def _text(figures: Figures, about: About) -> list[str]:
    return [
        f"## Text: {about.names['text']}",
        prose.TEXT,
        *_by_sparsity(figures, "text"),
    ]


def _by_sparsity(figures: Figures, task: str) -> list[str]:
    """One table for each sparsity; dense is in all of them."""
    own = {key: results for key, results in figures.items() if key.task == task}
    parts = []
    for sparsity in sorted({key.sparsity for key in own} - {0.0}):
        rows = sorted((key for key in own if key.sparsity in (0, sparsity)), key=_row)
        header = ("", MEASURES[task], "weights", "cost", "empty", "largest fan-in")
        parts += [
            f"### {task.capitalize()}, sparsity {percent(sparsity)}",
            table(header, [_cells(key, figures) for key in rows]),
        ]
    return parts


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.2g} %"


def _row(key: Key) -> tuple[int, int]:
    return list(METHODS).index(key.method), key.times


def _cells(key: Key, figures: Figures) -> tuple[str, ...]:
    results, digits = figures[key], 1 if key.task == "images" else 3
    cost = key.times * mean(results, "training")
    dense = "dense" in key.method
    return (
        key.name,
        f"{mean(results):.{digits}f} ± {spread(results):.{digits}f}",
        f"{mean(results, 'active'):,.0f}",
        f"{cost:.3f}",
        "" if dense else percent(mean(results, "empty")),
        "" if dense else percent(mean(results, "most_in")),
    )


def _landscape(views: Sequence[View], about: About, pictures: str) -> list[str]:
    def of(numbers: Iterable[float]) -> str:
        values = list(numbers)
        return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"

    names, curves = list(views[0].losses), list(views[0].curves)
    solutions = [(name, of(v.losses[name] for v in views), of(v.scores[name] for v in views)) for name in names]
    barriers = [(name, of(paths.barrier(v.curves[name]) for v in views)) for name in curves]
    return [
        "## The landscape (section 4.4)",
        prose.LANDSCAPE.format(sparsity=percent(about.landscape)),
        table(("solution", "training loss", "test accuracy, %"), solutions),
        table(("path from Static to pruning", "barrier"), barriers),
        f"![The training loss along the paths]({pictures}/claims_paths.png)",
        prose.PATHS,
    ]


def _hyper_parameters(about: About) -> list[str]:
    edge = sum(setting.learning_rate == max(tuned.RATES[task]) for (task, *_), setting in about.settings.items())
    return [
        "## Hyper-parameters",
        prose.HYPER_PARAMETERS.format(every=about.every, edge=edge, all=len(about.settings)),
        *(_settings(task, about.settings) for task in ("images", "text")),
    ]


def _settings(task: str, settings: Mapping[tuned.Name, Setting]) -> str:
    own = {key: setting for key, setting in settings.items() if key[0] == task}
    sparsities = sorted({sparsity for _, _, sparsity in own if sparsity})

    def cell(method: str, sparsity: float) -> str:
        setting = own[task, method, 0.0 if method == "dense" else sparsity]
        return f"{setting.learning_rate:g}" + (f", {setting.alpha:g}" if method in MOVING else "")

    rows = [(method, *(cell(method, sparsity) for sparsity in sparsities)) for method in COMPARED[task]]
    return table((task, *map(percent, sparsities)), rows)
