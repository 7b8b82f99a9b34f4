"""Lottery tickets: train, prune, rewind, repeat (Frankle & Carbin 2019).

This is the outer loop of iterative magnitude pruning, for any framework: the training of a round is the user's
function. After each round, the connections with the smallest weights are pruned. The next round starts again from the
same early weights: the initial weights (Frankle & Carbin 2019), or those of an early training step (rewinding, Frankle
et al. 2020)::

    def train(ticket):
        model = make_model()
        if ticket.checkpoint is not None:
            model.load_state_dict(ticket.checkpoint)
        optimizer = make_optimizer(model)
        sparse = sparsify(model, optimizer, LotteryTicket(ticket.sparsity), scores=ticket.scores)
        ...  # train; in round 0, checkpoint = copy.deepcopy(model.state_dict()) when the rewind step is reached
        return Trained(weights, sparse.masks, checkpoint)

    winner = Lottery(sparsity=0.9, rounds=10).run(train)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import numpy_namespace
from rigl_core.arrays.topology import magnitude
from rigl_core.inspect.host import to_numpy
from rigl_core.inspect.masks import Masks
from rigl_core.model.numbers import check_integer, check_sparsity

Array = npt.NDArray[Any]
Checkpoint = TypeVar("Checkpoint")


@dataclass(frozen=True, eq=False)
class Ticket(Generic[Checkpoint]):
    """The start of a round. Pickle it to continue with this round later, if the checkpoint can be pickled.

    Attributes:
        round: the number of the round; round 0 is dense.
        sparsity: the sparsity of the round, for the recipe.
        scores: arrays of the layers' shapes, by name: -1 for connections that are pruned already; for the others the
            magnitude of the weight at the end of the previous round (NaN counts as 0). None in round 0.
        checkpoint: the checkpoint that round 0 returned, to start from. None in round 0.
    """

    round: int = 0
    sparsity: float = 0.0
    scores: Mapping[str, Array] | None = None
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, eq=False)
class Trained(Generic[Checkpoint]):
    """The result of a round.

    Attributes:
        weights: final weights by layer name: any arrays that `rigl_core.inspect.host.to_numpy` can read. Every layer
            with a mask needs its weights; others are ignored.
        masks: final masks by layer name, as the ``masks`` of every adapter.
        checkpoint: anything that the user's training can start from, saved at the rewind step (step 0: the initial
            state). It should include the optimizer, the data order and schedules if these are to be rewound. Only the
            checkpoint of round 0 is used.
    """

    weights: Mapping[str, Any]
    masks: Masks
    checkpoint: Checkpoint | None = None


Train = Callable[[Ticket[Checkpoint]], Trained[Checkpoint]]
"""The user's function that trains one round."""


@dataclass(frozen=True)
class Lottery:
    """A lottery: the final sparsity, and the number of rounds of pruning until then.

    Round 0 is dense. After it come R rounds, and round r has the sparsity 1 - (1 - S)^(r / R): each round prunes the
    same share of the connections that are left.

    Attributes:
        sparsity: S, the sparsity of the last round, in (0, 1).
        rounds: R, at least 1; 1 is one-shot pruning. Give either ``rounds`` or ``share``.
        share: the share of the remaining connections that each round prunes, in (0, 1). The last round prunes fewer, to
            end at S. The papers use 0.2.

    Raises:
        TypeError, ValueError: the message names the parameter.
    """

    sparsity: float
    rounds: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsity", _positive("sparsity", self.sparsity))
        if (self.rounds is None) == (self.share is None):
            raise ValueError(f"rounds is {self.rounds} and share is {self.share}: give one of them.")
        if self.rounds is not None:
            object.__setattr__(self, "rounds", check_integer("rounds", self.rounds, 1))
        if self.share is not None:
            object.__setattr__(self, "share", _positive("share", self.share))

    @property
    def sparsities(self) -> tuple[float, ...]:
        """The sparsity of each round, from round 0 on; rounded to 12 decimals, to be the same on every machine."""
        left, rounds = 1 - self.sparsity, self.rounds
        if self.share is not None:
            # Rounding to 9 decimals removes float errors: a sparsity of 0.488 is exactly three rounds of 0.2.
            rounds = max(math.ceil(round(math.log(left, 1 - self.share), 9)), 1)
            densities = [(1 - self.share) ** number for number in range(rounds)]
        else:
            assert rounds is not None
            densities = [left ** (number / rounds) for number in range(rounds)]
        return (*(round(1 - density, 12) for density in densities), self.sparsity)

    def run(self, train: Train[Checkpoint], ticket: Ticket[Checkpoint] | None = None) -> Trained[Checkpoint]:
        """Train round after round.

        Args:
            train: trains one round, from ``ticket.checkpoint`` if there is one, with the sparsity and scores of the
                ticket. It gets every ticket, so it can save tickets, or the accuracy of each round.
            ticket: the round to continue with; None starts at round 0.

        Returns:
            The result of the last round.

        Raises:
            ValueError: see `next`.
        """
        coming = Ticket() if ticket is None else ticket
        self._check_round(coming)
        while True:
            trained = train(coming)
            following = self.next(coming, trained)
            if following is None:
                return trained
            coming = following

    def next(self, ticket: Ticket[Checkpoint], trained: Trained[Checkpoint]) -> Ticket[Checkpoint] | None:
        """The ticket of the next round; None after the last round.

        Raises:
            ValueError: if the ticket belongs to no round of this lottery, round 0 returned no checkpoint, weights do
                not fit the masks, or pruned connections are active again because the training did not use the scores.
        """
        self._check_round(ticket)
        checkpoint = trained.checkpoint if ticket.round == 0 else ticket.checkpoint
        if checkpoint is None:
            raise ValueError(
                "checkpoint of round 0 is None: return what later rounds can start from, saved at the rewind step."
            )
        masks = {name: to_numpy(mask).astype(np.bool_) for name, mask in trained.masks.items()}
        if ticket.scores is not None:
            _check_nested(ticket.scores, masks, ticket.round)
        scores = {name: _scores(name, trained.weights, mask) for name, mask in masks.items()}
        number, sparsities = ticket.round + 1, self.sparsities
        return Ticket(number, sparsities[number], scores, checkpoint) if number < len(sparsities) else None

    def _check_round(self, ticket: Ticket[Any]) -> None:
        sparsities = self.sparsities
        if not 0 <= ticket.round < len(sparsities) or ticket.sparsity != sparsities[ticket.round]:
            raise ValueError(
                f"ticket is of round {ticket.round} at a sparsity of {ticket.sparsity}: this lottery's rounds have "
                f"the sparsities {', '.join(map(str, sparsities))}. Go on with the lottery that made the ticket."
            )


def _positive(parameter: str, value: float) -> float:
    value = check_sparsity(value, parameter)
    if value == 0:
        raise ValueError(f"{parameter} is 0: nothing would be pruned; it must be in (0, 1).")
    return value


def _scores(name: str, weights: Mapping[str, Any], mask: npt.NDArray[np.bool_]) -> Array:
    if name not in weights:
        raise ValueError(f"weights lacks layer {name!r}, which has a mask: return the final weights of every layer.")
    weight = to_numpy(weights[name])
    if weight.shape != mask.shape:
        raise ValueError(
            f"weights has the shape {weight.shape} for layer {name!r}, and its mask {mask.shape}: return both as the "
            "layer stores them."
        )
    magnitudes = magnitude(weight, xp=numpy_namespace)
    scores: Array = np.where(mask, magnitudes, np.full_like(magnitudes, -1))
    return scores


def _check_nested(scores: Mapping[str, Array], masks: Mapping[str, npt.NDArray[np.bool_]], number: int) -> None:
    """Refuse masks that do not follow from the scores, since pruned connections are active again.

    A few pruned connections do return if the layer has more active connections than before. The rounding of the counts
    of small layers can cause that.
    """
    earlier = {name: score >= 0 for name, score in scores.items()}
    if {name: mask.shape for name, mask in earlier.items()} != {name: mask.shape for name, mask in masks.items()}:
        raise ValueError(
            f"masks of round {number} are of other layers or shapes than before: sparsify the same layers in every "
            f"round. They were {_shapes(earlier)}, and are {_shapes(masks)}."
        )
    before, now = (sum(int(np.count_nonzero(mask)) for mask in each.values()) for each in (earlier, masks))
    if now > before:
        raise ValueError(
            f"masks of round {number} have {now:,} active connections, and {before:,} before: give ticket.sparsity to "
            "the recipe."
        )
    for name, mask in masks.items():
        more = int(np.count_nonzero(mask)) - int(np.count_nonzero(earlier[name]))
        if np.count_nonzero(mask & ~earlier[name]) > max(more, 0):
            raise ValueError(
                f"masks of round {number} have connections of layer {name!r} that were pruned before: give "
                "ticket.scores to sparsify, with a recipe whose topology never grows."
            )


def _shapes(masks: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {mask.shape}" for name, mask in masks.items())
