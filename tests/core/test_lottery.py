"""Lottery tickets, with a fake training whose weights walk at random. A plain sort says what each round must prune."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_core import Lottery, Ticket, Trained
from rigl_core.adapter import numpy_namespace, top_k_mask
from rigl_core.model.numbers import active_count
from rigl_core.testing.checks import checks

Arrays = dict[str, npt.NDArray[Any]]

SHAPES = {"a": (8, 5), "b": (5, 4)}


@dataclass
class Training:
    """A fake training. Every layer keeps the ticket's largest scores; weights walk at random from the checkpoint."""

    seed: int = 0
    tickets: list[Ticket[Arrays]] = field(default_factory=list)
    trained: list[Trained[Arrays]] = field(default_factory=list)

    def __call__(self, ticket: Ticket[Arrays]) -> Trained[Arrays]:
        rng = np.random.default_rng((self.seed, ticket.round))
        early = ticket.checkpoint
        if early is None:
            early = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
        masks = {name: self.mask(ticket, name) for name in SHAPES}
        weights = {name: (early[name] + rng.normal(size=shape)) * masks[name] for name, shape in SHAPES.items()}
        result = Trained(weights, masks, early if ticket.round == 0 else None)
        self.tickets.append(ticket)
        self.trained.append(result)
        return result

    def mask(self, ticket: Ticket[Arrays], name: str) -> npt.NDArray[Any]:
        shape = SHAPES[name]
        if ticket.scores is None:
            return np.ones(shape, bool)
        active = active_count(ticket.sparsity, ticket.scores[name].size)
        flat: npt.NDArray[Any] = top_k_mask(ticket.scores[name].reshape(-1), active, xp=numpy_namespace)
        return flat.reshape(shape)


sparsities = st.integers(1, 99).map(lambda percent: percent / 100)
lotteries = st.builds(Lottery, sparsities, rounds=st.integers(1, 8)) | st.builds(
    Lottery, sparsities, share=st.integers(10, 90).map(lambda percent: percent / 100)
)


@given(lotteries)
def test_every_round_prunes_the_same_share_of_what_is_left(lottery: Lottery) -> None:
    rounds = lottery.sparsities
    assert (rounds[0], rounds[-1]) == (0.0, lottery.sparsity)
    assert all(before < after for before, after in pairwise(rounds))
    pruned = [1 - (1 - after) / (1 - before) for before, after in pairwise(rounds)]
    if lottery.rounds is not None:
        assert len(rounds) == lottery.rounds + 1
        assert pruned == pytest.approx([pruned[0]] * lottery.rounds)
    else:
        assert pruned[:-1] == pytest.approx([lottery.share] * (len(pruned) - 1))
        assert pruned[-1] <= lottery.share + 1e-9  # type: ignore[operator]


def test_the_rounds_of_the_papers() -> None:
    assert Lottery(0.488, share=0.2).sparsities == (0.0, 0.2, 0.36, 0.488)
    assert Lottery(0.488, rounds=3).sparsities == (0.0, 0.2, 0.36, 0.488)
    assert Lottery(0.5, share=0.2).sparsities == (0.0, 0.2, 0.36, 0.488, 0.5)
    assert Lottery(0.9, rounds=1).sparsities == Lottery(0.9, share=0.95).sparsities == (0.0, 0.9)


@given(lotteries, st.integers(0, 2**32 - 1))
def test_tickets_are_those_of_iterative_magnitude_pruning(lottery: Lottery, seed: int) -> None:
    train = Training(seed)
    assert lottery.run(train) is train.trained[-1]
    first = train.tickets[0]
    assert (first.round, first.sparsity, first.scores, first.checkpoint) == (0, 0.0, None, None)
    assert [ticket.sparsity for ticket in train.tickets] == list(lottery.sparsities)
    active = {name: set(range(int(np.prod(shape)))) for name, shape in SHAPES.items()}
    for number, (ticket, before) in enumerate(zip(train.tickets[1:], train.trained, strict=False), start=1):
        assert ticket.round == number
        assert ticket.checkpoint is train.trained[0].checkpoint
        assert ticket.scores is not None
        for name, scores in ticket.scores.items():
            magnitudes = np.abs(before.weights[name]).reshape(-1)
            assert [score for i, score in enumerate(scores.flat) if i in active[name]] == [
                magnitudes[i] for i in sorted(active[name])
            ]
            assert {i for i, score in enumerate(scores.flat) if score == -1} == set(range(scores.size)) - active[name]
            best = sorted(active[name], key=lambda i: (-magnitudes[i], i))
            active[name] = set(best[: active_count(ticket.sparsity, scores.size)])
            assert set(np.flatnonzero(train.trained[number].masks[name])) == active[name]


@given(lotteries, st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_a_saved_ticket_goes_on_where_it_was(lottery: Lottery, seed: int, number: int) -> None:
    whole, rest = Training(seed), Training(seed)
    winner = lottery.run(whole)
    saved = pickle.loads(pickle.dumps(whole.tickets[number % len(whole.tickets)]))
    again = lottery.run(rest, saved)
    assert len(rest.tickets) == len(whole.tickets) - saved.round
    for name in SHAPES:
        np.testing.assert_array_equal(again.weights[name], winner.weights[name])
        np.testing.assert_array_equal(again.masks[name], winner.masks[name])


def test_numbers_that_are_none_and_zeros() -> None:
    weights = np.array([np.nan, -np.inf, -0.0, -2, np.nan, 1e-310], np.float64)
    mask = np.array([1, 1, 1, 1, 0, 1], bool)
    ticket = Lottery(0.5, rounds=1).next(Ticket(), Trained({"a": weights}, {"a": mask}, checkpoint="early"))
    assert ticket is not None
    assert ticket.scores is not None
    assert ticket.scores["a"].tolist() == [0, np.inf, 0, 2, -1, 0]
    assert ticket.scores["a"].dtype == weights.dtype


def test_a_layer_whose_count_rises_by_rounding_may_take_a_connection_back() -> None:
    lottery = Lottery(0.9, rounds=4)
    scores = {"a": np.array([3.0, -1, -1]), "b": np.ones(9)}
    ticket = Ticket(2, lottery.sparsities[2], scores, "early")
    masks = {"a": np.array([1, 1, 0], bool), "b": np.arange(9) < 5}
    following = lottery.next(ticket, Trained({"a": np.ones(3), "b": np.ones(9)}, masks))
    assert following is not None
    assert following.scores is not None
    assert following.scores["a"].tolist() == [1, 1, -1]


def returning(**changes: Any) -> Callable[[Ticket[Arrays]], Trained[Arrays]]:
    """A training that returns wrong values in one of its rounds."""
    number = changes.pop("round")
    training = Training()

    def train(ticket: Ticket[Arrays]) -> Trained[Arrays]:
        trained = training(ticket)
        values = {name: getattr(trained, name) for name in ("weights", "masks", "checkpoint")}
        return Trained(**(values | changes)) if ticket.round == number else trained

    return train


@checks("P3")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"round": 0, "checkpoint": None}, "checkpoint of round 0 is None: return what later rounds can start from"),
        ({"round": 0, "weights": {"a": np.ones((8, 5))}}, "weights lacks layer 'b', which has a mask"),
        ({"round": 1, "weights": {name: np.ones(3) for name in SHAPES}}, r"weights has the shape \(3,\) for layer 'a'"),
        (
            {"round": 2, "masks": {name: np.ones(shape, bool) for name, shape in SHAPES.items()}},
            "masks of round 2 have 60 active connections, and 35 before: give ticket.sparsity to the recipe",
        ),
        (
            {
                "round": 2,
                "masks": {name: np.arange(np.prod(shape)).reshape(shape) < 4 for name, shape in SHAPES.items()},
            },
            "masks of round 2 have connections of layer 'a' that were pruned before: give ticket.scores to sparsify",
        ),
        (
            {"round": 1, "masks": {"a": np.ones((8, 5), bool)}},
            r"masks of round 1 are of other layers .* They were a \(8, 5\), b \(5, 4\), and are a \(8, 5\)\.",
        ),
        (
            {"round": 1, "masks": {name: np.ones((5, 4), bool) for name in SHAPES}},
            r"masks of round 1 are of other layers or shapes than before: .* and are a \(5, 4\), b \(5, 4\)",
        ),
    ],
)
def test_what_a_training_forgets_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lottery(0.8, rounds=3).run(returning(**changes))


@checks("P3")
def test_lotteries_and_tickets_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="rounds is None and share is None: give one of them"):
        Lottery(0.9)
    with pytest.raises(ValueError, match=r"rounds is 3 and share is 0\.2: give one of them"):
        Lottery(0.9, rounds=3, share=0.2)
    with pytest.raises(ValueError, match="rounds is 0: it must be at least 1"):
        Lottery(0.9, rounds=0)
    with pytest.raises(ValueError, match=r"sparsity is 1: it must be in \[0, 1\)"):
        Lottery(1, rounds=3)
    with pytest.raises(ValueError, match="sparsity is 0: nothing would be pruned"):
        Lottery(0, rounds=3)
    with pytest.raises(ValueError, match="share is 0: nothing would be pruned"):
        Lottery(0.5, share=0)
    other = Ticket(1, 0.3, {name: np.ones(shape) for name, shape in SHAPES.items()}, {})
    with pytest.raises(ValueError, match=r"ticket is of round 1 at a sparsity of 0\.3: this lottery's rounds have"):
        Lottery(0.9, rounds=2).run(Training(), other)
