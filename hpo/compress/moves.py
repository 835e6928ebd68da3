"""Moves that leave a candidate as large as it is: some layers get more of it, others as much less.

A move shifts layers one step (see `hpo.compress.shift`): one up and another down, one to three times, the
number being the smaller of two draws, after EvoPress (Sieberling et al. 2024, arXiv:2410.14649), whose level
switches they are. Two layers of one shape are preferred: what one gives, the other can take.

Letters: L layers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpo.compress.allocation import protected
from hpo.compress.budget import TOLERANCE, Ints
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.low_rank import LowRankKnobs
from hpo.compress.mixed_knobs import MixedKnobs
from hpo.compress.plan import Change, Plan
from hpo.compress.planner import plan_of
from hpo.compress.profile import ModelProfile
from hpo.compress.recipe import Knobs, step
from hpo.compress.shift import LARGEST, ShiftKnobs, written
from hpo.compress.sparse_plan import Sparse, linear_maps
from hpo.compress.sparsify_knobs import SparsifyKnobs
from hpo.errors import Unsupported
from hpo.space import Candidate

_PAIRS = 3
"""Most pairs of layers that one move touches."""
_ALIKE = 0.8
"""Share of pairs of one shape, where there are any."""
_PAYERS = 4
"""Most layers that go down beside the first where one step up costs more than one step down saves."""
_DRAWS = 24
"""Draws for each move wanted, after which there are taken to be no more."""


@dataclass(frozen=True)
class Board:
    """What one stage of a candidate may shift."""

    stage: str
    steps: Ints
    """(L,) as they are."""
    shapes: tuple[tuple[int, int], ...]
    """Of each layer."""
    free: Ints
    """Places of layers that may be shifted; ascending."""

    def drawn(self, rng: np.random.Generator) -> Ints:
        """Return steps after a move, (L,)."""
        steps = self.steps.copy()
        for _ in range(int(rng.integers(1, _PAIRS + 1, size=2).min())):
            up = int(rng.choice(self.free))
            steps[up] += 1
            steps[self.partner(up, rng)] -= 1
        return steps

    def partner(self, place: int, rng: np.random.Generator) -> int:
        """Return another layer, as a rule of the same shape."""
        others = self.free[self.free != place]
        alike = [other for other in others.tolist() if self.shapes[other] == self.shapes[place]]
        return int(rng.choice(alike if alike and rng.random() < _ALIKE else others))


def moves(profile: ModelProfile, candidate: Candidate, count: int, seed: int) -> list[Candidate]:
    """Return up to `count` candidates one move away, each with a plan of its own; the same for the same seed.

    In each some layer holds more than in `candidate` and another less, and neither the bytes of all layers
    nor the MACs are above those of `candidate`, nor above those it would have without any shift, by more than
    half a per cent. Of a layer that is held whole with zeros in it only the others count.
    There are none where nothing gives each layer something of its own before the first healing (what comes
    after it does not show in a first look at the model), or where the candidate cannot be planned.
    """
    try:
        parent, root = plan_of(profile, candidate), plan_of(profile, unshifted(candidate))
    except Unsupported:
        return []
    boards = [board for change in parent.changes if (board := _board(profile, candidate, change)) is not None]
    rng, found = np.random.default_rng(seed), dict[str, Candidate]()
    for _ in range(_DRAWS * count if boards else 0):
        board = boards[int(rng.integers(len(boards)))]
        for moved, plan in _cheapened(profile, candidate, board, rng):
            if _costs_no_more(plan, parent) and _costs_no_more(plan, root):
                if _trades(plan, parent) and plan.hash != parent.hash:
                    found.setdefault(plan.hash, moved)
                break
        if len(found) == count:
            break
    return list(found.values())


def unshifted(candidate: Candidate) -> Candidate:
    """Return a candidate without its shifts."""
    return Candidate.of({name: v for name, v in candidate.items if name.partition(".")[2] != "shift"})


def _cheapened(
    profile: ModelProfile, candidate: Candidate, board: Board, rng: np.random.Generator
) -> Iterator[tuple[Candidate, Plan]]:
    """Yield a move, then the same with one more layer a step down, and so on."""
    steps = board.drawn(rng)
    raised = np.flatnonzero(steps > board.steps)
    for _ in range(1 + _PAYERS):
        if np.abs(steps).max() > LARGEST or not len(raised):
            return
        moved = Candidate.of({**candidate.values, f"{board.stage}.shift": written(steps)})
        try:
            yield moved, plan_of(profile, moved)
        except Unsupported:
            return
        payer = board.partner(int(rng.choice(raised)), rng)
        steps[payer] -= payer not in raised


def _board(profile: ModelProfile, candidate: Candidate, change: Change) -> Board | None:
    chosen = step(candidate, change.stage)
    if chosen is None or change.is_healed or not isinstance(chosen.knobs, ShiftKnobs):
        return None
    layers = change.plan.architecture.layers
    free = np.flatnonzero([not fixed for fixed in _fixed(chosen.knobs, change)])
    if len(free) < 2:
        return None
    shapes = tuple((layer.out_features, layer.in_features) for layer in layers)
    return Board(change.stage, chosen.knobs.steps(len(layers)), shapes, free)


def _fixed(knobs: Knobs, change: Change) -> Sequence[bool]:
    """Return which layers a shift does not reach, (L,)."""
    if isinstance(knobs, LowRankKnobs):
        return [bool(held) for held in protected(change.plan.architecture, knobs)]
    if isinstance(knobs, MixedKnobs):
        return [layer.costs.packed_bytes == 0 for layer in change.plan.layers]
    if isinstance(knobs, SparsifyKnobs):
        return [knobs.n_of_m is not None or not isinstance(layer, Sparse) for layer in change.plan.layers]
    return [False] * len(change.plan.layers)


def _costs_no_more(plan: Plan, other: Plan) -> bool:
    room = 1 + TOLERANCE
    return sum(_held(plan)) <= room * sum(_held(other)) and plan.prefill_macs <= room * other.prefill_macs


def _trades(plan: Plan, other: Plan) -> bool:
    """Whether one layer holds more than in the other plan and one holds less."""
    changes = [now - before for now, before in zip(_held(plan), _held(other), strict=True)]
    return min(changes) < 0 < max(changes)


def _held(plan: Plan) -> list[int]:
    """Return the bytes of what each layer holds, (L,)."""
    bits = plan.architecture.weight_bits
    return [_weights(layer) * bits // 8 + layer.costs.packed_bytes for layer in plan.layers]


def _weights(layer: LayerPlan) -> int:
    if not isinstance(layer, Sparse) or layer.layout is not None:
        return layer.costs.resident
    kept = [layer.pattern.non_zeros(*shape) - shape[0] * shape[1] for shape in linear_maps(layer.matrices)]
    return layer.costs.resident + sum(kept)
