"""The table, for the terminal and for README.md."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from results import Report, Result

MARKS = ("<!-- table -->", "<!-- end of the table -->")
HEADINGS = ("benchmark", "contender", "subject", "figure", "target", "min, ms", "median, ms", "besides")


def to_table(report: Report) -> Table:
    """The table for the terminal; missed targets are red."""
    table = Table(title=f"{report.machine}; {_versions(report)}")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if "ms" in heading or heading in ("figure", "target") else "left")
    last = ""
    for result in report.results:
        if last not in ("", result.benchmark):
            table.add_section()
        last = result.benchmark
        table.add_row(*row_of(result), style="red" if result.missed else None)
    return table


def to_markdown(report: Report) -> str:
    """The table for README.md; missed targets are bold."""
    lines = [f"{report.machine}. {_versions(report)}.", "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
    for result in report.results:
        row = row_of(result)
        if result.missed:
            row[3] = f"**{row[3]}**"
        lines.append(_line(row))
    return "\n".join(lines)


def into_text(report: Report, text: str) -> str:
    """The text with this report's table between its marks, in place of the old one."""
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    return f"{before}{MARKS[0]}\n{to_markdown(report)}\n{MARKS[1]}{after}"


def row_of(result: Result) -> list[str]:
    """The cells of one result, as texts."""
    times = [f"{1e3 * result.least:,.1f}", f"{1e3 * result.median:,.1f}"] if result.seconds else ["", ""]
    return [
        result.benchmark,
        result.contender,
        result.subject,
        f"{_short(result.figure)} {result.unit}",
        "" if result.target is None else f"≤ {result.target:.3g}",
        *times,
        ", ".join(f"{_short(number)} {name}" for name, number in result.facts.items() if name != "weights"),
    ]


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}" if abs(number) < 10 else f"{number:.1f}"


def _versions(report: Report) -> str:
    return ", ".join(f"{package} {version}" for package, version in report.versions.items())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
