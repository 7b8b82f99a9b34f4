"""The tables of docs/peers.md, made from the records of `recorder`: ``python -m conformance_tests.peers.table FILES``.

With ``--check``, nothing is written; the exit status is 1 if a table of the page is out of date. The smallest cases may
differ: a library that draws without a seed breaks a rule by other numbers each time.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "peers.md"
BEGIN, END = "<!-- begin: made by nox -s peers -->", "<!-- end: made by nox -s peers -->"
WORDS = {"kept": "yes", "broken": "**no**", "not offered": "not offered"}

Record = Sequence[Mapping[str, Any]]


def worst(outcomes: Sequence[str]) -> str:
    """What several properties say of one rule: one that breaks it decides; one that is not offered says nothing."""
    return min(outcomes, key=["broken", "kept", "not offered"].index, default="not offered")


def rule_table(records: Mapping[str, Record], titles: Mapping[str, str]) -> list[str]:
    """A row for each rule that has a property of its own."""
    ruled = {rule for record in records.values() for found in record for rule in found["rules"]}
    lines = [f"| rule | {' | '.join(records)} |", "|---" * (len(records) + 1) + "|"]
    for rule, title in titles.items():
        if rule in ruled:
            cells = [
                WORDS[worst([found["outcome"] for found in record if rule in found["rules"]])]
                for record in records.values()
            ]
            lines.append(f"| [{rule}](contract.md). {title} | {' | '.join(cells)} |")
    return lines


def offer_table(records: Mapping[str, Record]) -> list[str]:
    """A row for each part of a recipe, and for each dtype."""
    lines = [f"| | {' | '.join(records)} |", "|---" * (len(records) + 1) + "|"]
    offers = {name: {x["case"]: x for x in record if not x["rules"]} for name, record in records.items()}
    for case in next(iter(offers.values())):
        cells = [WORDS[own[case]["outcome"]] for own in offers.values()]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return lines


def breaches(records: Mapping[str, Record], titles: Mapping[str, str]) -> list[str]:
    """For each library, the rules that it breaks, each with the smallest case."""
    lines: list[str] = []
    for name, record in records.items():
        broken = [found for found in record if found["outcome"] == "broken"]
        texts = [f"- **{rule}**: {found['text']}." for rule in titles for found in broken if rule in found["rules"]]
        lines += [f"### {name}", "", *(texts or ["Nothing."]), ""]
    return lines


def between(records: Mapping[str, Record]) -> str:
    """The text between the marks."""
    titles = dict(re.findall(r"^### ([A-Z]\d+)\. (.+)$", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE))
    parts = [
        ["## Rules", "", *rule_table(records, titles), ""],
        ["## What breaks, with the smallest case", "", *breaches(records, titles)],
        ["## What is offered", "", *offer_table(records)],
    ]
    return "\n".join(line for part in parts for line in part)


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("records", nargs="+", type=Path, help="files of the recorder; their stems are the columns")
    options.add_argument("--check", action="store_true", help="write nothing")
    chosen = options.parse_args(arguments)
    records = {file.stem: json.loads(file.read_text()) for file in chosen.records}
    died = [
        f"{name}: {x['property']}: {x['text']}"
        for name, found in records.items()
        for x in found
        if x["outcome"] == "died"
    ]
    if died:
        sys.exit("\n".join(["these died of an error in every case, so nothing is known of their rules:", *died]))
    old = PAGE.read_text()
    head, _, rest = old.partition(BEGIN)
    new = f"{head}{BEGIN}\n\n{between(records)}\n\n{END}{rest.partition(END)[2]}"
    if not chosen.check:
        PAGE.write_text(new)
        return 0
    same = _rows(new) == _rows(old)
    print(f"{PAGE} is {'up to date' if same else 'out of date: run nox -s peers'}.")
    return int(not same)


def _rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("|")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
