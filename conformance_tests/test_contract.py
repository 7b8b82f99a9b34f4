"""The contract and its properties: every rule has a property, and every property cites a rule."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

from rigl_core.testing import properties

ROOT = Path(__file__).parent.parent
TITLES = re.findall(r"^### ([A-Z]\d+)\. \S", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE)
KIT = Path(properties.__file__).parent
SOURCES = [*KIT.glob("test_*.py"), *ROOT.glob("conformance_tests/test_*.py"), *ROOT.glob("tests/**/test_*.py")]


def cited(source: Path) -> set[str]:
    return {
        rule for call in re.findall(r"@checks\(([^)]*)\)", source.read_text()) for rule in re.findall(r'"(\w+)"', call)
    }


def test_rules_are_numbered_once() -> None:
    assert len(TITLES) == len(set(TITLES)) > 20


def test_every_rule_has_a_property() -> None:
    everything = set().union(*map(cited, SOURCES))
    assert sorted(set(TITLES) - everything) == []


def test_every_property_runs_on_our_backends() -> None:
    imported = (ROOT / "conformance_tests" / "test_properties.py").read_text()
    assert sorted(file.stem for file in KIT.glob("test_*.py") if f"{file.stem} import *" not in imported) == []


def test_every_citation_is_a_rule() -> None:
    for source in SOURCES:
        assert sorted(cited(source) - set(TITLES)) == [], source.name


def test_every_expected_failure_is_of_a_property_and_has_a_reason() -> None:
    expected = tomllib.loads((ROOT / "conformance_tests" / "xfails.toml").read_text())
    properties_ = set().union(*(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE) for file in SOURCES))
    assert sorted(name for name in expected if name.partition("[")[0] not in properties_) == []
    assert all(isinstance(reason, str) and len(reason) > 20 for reason in expected.values())


def test_every_property_cites_a_rule() -> None:
    files = [
        *KIT.glob("test_*.py"),
        *(
            ROOT / "conformance_tests" / name
            for name in ("test_budget.py", "test_ramps.py", "test_schedule.py", "test_topologies.py")
        ),
    ]
    for source in files:
        functions = re.split(r"^def (?=test_)", source.read_text(), flags=re.MULTILINE)
        for before, after in itertools.pairwise(functions):
            decorators = before.rsplit("\n\n\n", 1)[-1]
            assert "@checks(" in decorators, f"{source.name}: {after.split('(')[0]}"
