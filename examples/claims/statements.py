"""The paper's claims: each has the comparisons that it stands or falls with here, and what to know where it falls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import prose
from cases import TIMES
from figures import Comparison, Figures, Key, compare, difference, mean
from paths import barrier
from walks import View

SHORT = {"holds": "hold", "no clear difference": "unclear", "does not hold": "against it"}


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        source: where it is made.
        says: what it says.
        comparisons: those that decide it.
        because: names of the reasons (`reasons`) to look at, where it does not hold.
    """

    source: str
    says: str
    comparisons: Sequence[Comparison]
    because: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """``"holds"``, ``"does not hold"``, ``"no clear difference"``, or the number of each."""
        found = Counter(comparison.verdict for comparison in self.comparisons)
        if len(found) == 1:
            return next(iter(found))
        return ", ".join(f"{found[verdict]} {short}" for verdict, short in SHORT.items() if found[verdict])


def reasons(figures: Figures, updates: int) -> dict[str, str]:
    """What explains that a claim of the paper does not hold here, by name."""
    shares: dict[float, list[str]] = {}
    for key in sorted(figures, key=lambda key: key.sparsity):
        if (key.task, key.times) == ("images", 1) and key.method in ("Static", "SET", "RigL", "RigL by output"):
            share = f"{key.method} {100 * mean(figures[key], 'empty'):.0f} %"
            shares.setdefault(key.sparsity, []).append(share)
    empty = "; ".join(f"at {100 * sparsity:g} % {', '.join(own)}" for sparsity, own in shares.items())
    return {"piled up": prose.PILED_UP.format(empty=empty), "short": prose.SHORT.format(updates=updates)}


def claims(figures: Figures) -> list[Claim]:
    """All claims whose trainings are among the figures."""
    return [claim for claim in (*_on_images(figures), *_on_text(figures)) if claim.comparisons]


def _on_images(figures: Figures) -> list[Claim]:
    each = _comparing(figures, "images")
    both, short = ("piled up", "short"), ("short",)
    paper, ours = "section 4.1", "ours"
    return [
        Claim(paper, "RigL is better than a static random topology", each("RigL", "Static"), both),
        Claim(paper, "RigL is better than SNIP", each("RigL", "SNIP"), both),
        Claim(paper, "RigL is better than SET", each("RigL", "SET"), both),
        Claim(paper, "RigL is better than a dense network of the same size", each("RigL", "small dense"), both),
        Claim(paper, "RigL is better than SNFS, at a lower cost", each("RigL", "SNFS"), both),
        Claim(
            paper, "Trained three times as long, RigL is better than Static", each("RigL", "Static", TIMES, TIMES), both
        ),
        Claim(paper, "Trained three times as long, RigL is better than SET", each("RigL", "SET", TIMES, TIMES), both),
        Claim(paper, "Trained three times as long, RigL is better than pruning", each("RigL", "pruning", TIMES), both),
        Claim(ours, "Growth compared within outputs is better", each("RigL by output", "RigL")),
        Claim(ours, "With it, RigL is better than SET", each("RigL by output", "SET"), short),
        Claim(ours, "With it, RigL is better than Static", each("RigL by output", "Static"), short),
        Claim(
            ours, "With it, three times as long, RigL is better than pruning", each("RigL by output", "pruning", TIMES)
        ),
    ]


def _on_text(figures: Figures) -> list[Claim]:
    each, short, paper = _comparing(figures, "text"), ("short",), "section 4.2"
    return [
        Claim(paper, "On text, RigL is better than a static topology", each("RigL", "Static"), short),
        Claim(paper, "On text, RigL is better than SET", each("RigL", "SET"), short),
        Claim(paper, "On text, pruning is better than RigL", each("pruning", "RigL")),
        Claim("ours", "On text, growth compared within outputs is better", each("RigL by output", "RigL")),
    ]


def on_landscape(views: Sequence[View], sparsity: float) -> list[Claim]:
    """The claims about the landscape. Differences are within a seed, since its networks share their first weights."""

    def each(says: str, differences: Sequence[float]) -> Claim:
        return Claim("section 4.4", says, [difference(sparsity, differences)])

    sparse = [name for name in views[0].curves if name.endswith("sparse")]
    losses = [view.losses["Static, then Static"] - view.losses["Static, then RigL"] for view in views]
    straight = [barrier(view.curves["straight"]) for view in views]
    curved = [min(barrier(view.curves[name]) for name in sparse) for view in views]
    return [
        each("From a Static solution, RigL reaches a lower training loss than further Static training", losses),
        each("The straight path from Static to pruning has a barrier", straight),
        each("The best curve among sparse networks has a barrier", curved),
    ]


def _comparing(figures: Figures, task: str) -> Callable[..., list[Comparison]]:
    """A function that compares two methods, of two lengths, at each sparsity that both have."""

    def each(better: str, worse: str, times: int = 1, others: int = 1) -> list[Comparison]:
        ours = [key for key in figures if (key.task, key.method, key.times) == (task, better, times)]
        pairs = [(key, Key(task, worse, key.sparsity, others)) for key in sorted(ours, key=lambda key: key.sparsity)]
        return [compare(figures, *pair) for pair in pairs if pair[1] in figures]

    return each
