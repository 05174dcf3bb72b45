"""NUTS: Hamiltonian trajectories that stop where they turn back.

Hoffman and Gelman 2014, JMLR 15, with the multinomial sampling and the generalised U-turn test of Betancourt 2017
(arXiv:1701.02434), in the iterative form of Phan and Pradhan (NumPyro): a subtree of 2^k leaves is built leaf by leaf, and
the k momenta against which a later leaf must be tested wait in a checkpoint. Momenta are whitened (see `_metric`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from probgen.inference.mcmc import _adaptation
from probgen.inference.mcmc._hamiltonian import ENERGY_ERROR, Adapted, Point, State, leapfrog
from probgen.target import Continuous


class Info(NamedTuple):
    """What one transition tells, in ArviZ's words."""

    z: Any
    lp: Any
    acceptance_rate: Any
    step_size: Any
    tree_depth: Any
    n_steps: Any
    diverging: Any
    energy: Any


class Proposal(NamedTuple):
    """A candidate for the next state of the chain."""

    z: Any
    log_density: Any
    gradient: Any
    energy: Any


class Subtree(NamedTuple):
    """Leaves of one doubling; `weight` is the log of the sum of exp(-energy), `momentum` the sum of momenta."""

    leaf: Any
    point: Point
    proposal: Proposal
    weight: Any
    momentum: Any
    momenta: Any
    sums: Any
    turning: Any
    diverging: Any
    accept: Any


class Tree(NamedTuple):
    """The trajectory so far; `left` and `right` are its ends."""

    depth: Any
    left: Point
    right: Point
    proposal: Proposal
    weight: Any
    momentum: Any
    leaves: Any
    accept: Any
    stop: Any
    diverging: Any


@dataclass(frozen=True, kw_only=True)
class NUTS(Adapted):
    """The No-U-Turn sampler.

    max_tree_depth: a trajectory has at most 2^max_tree_depth leapfrog steps.
    """

    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.max_tree_depth <= 20:
            raise ValueError(f"max_tree_depth is {self.max_tree_depth}; it must be from 1 to 20")

    def step(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        xp, warmup = target.ops.xp, state.warmup
        step_size = _adaptation.current_step_size(xp, warmup, self.num_warmup)
        # Before the first metric, long trees would only waste gradients.
        early = warmup.step < _adaptation.schedule(self.num_warmup).first
        depth = xp.where(early, min(self.max_tree_depth, 6), self.max_tree_depth)
        tree = _grow(key, target, state, warmup.metric, step_size, depth, self.max_tree_depth)
        z, log_density, gradient, energy = tree.proposal
        accept = tree.accept / tree.leaves
        warmup = _adaptation.advance(target.ops, self, warmup, z, gradient, accept)
        info = Info(z, log_density, accept, step_size, tree.depth, tree.leaves, tree.diverging, energy)
        return State(z, log_density, gradient, warmup), info


def _grow(key: Any, target: Any, state: State, metric: Any, step_size: Any, max_depth: Any, rows: int) -> Tree:
    """Double the trajectory, forwards or backwards at random, until it turns, diverges or is long enough."""
    ops, xp = target.ops, target.ops.xp
    k_momentum, k_tree = ops.split(key, 2)
    r = ops.normal(k_momentum, state.z.shape)
    energy = 0.5 * (r @ r) - state.log_density
    point = Point(state.z, r, metric.pull(state.gradient))
    zero, no = energy * 0, xp.bool_(False)
    tree = Tree(xp.int32(0), point, point, Proposal(*state[:3], energy), zero, r, xp.int32(0), zero, no, no)
    checkpoints = xp.zeros((rows, *r.shape), r.dtype)

    def double(tree: Tree) -> Tree:
        k_direction, k_leaves, k_accept = ops.split(ops.fold_in(k_tree, tree.depth), 3)
        forward = ops.uniform(k_direction) < 0.5
        begin = _choose(ops, forward, tree.right, tree.left)
        signed = ops.where(forward, step_size, -step_size)
        sub = _subtree(k_leaves, target, metric, begin, tree.proposal, signed, energy, tree.depth, checkpoints)
        bad = xp.logical_or(sub.turning, sub.diverging)
        better = xp.log(ops.uniform(k_accept)) < sub.weight - tree.weight
        left, right = _choose(ops, forward, tree.left, sub.point), _choose(ops, forward, sub.point, tree.right)
        momentum = tree.momentum + sub.momentum
        turning = _turns(xp, left.r, right.r, momentum)
        # Across the seam too (Stan since 2.21): each half together with the nearest momentum of the other.
        far, first = _choose(ops, forward, tree.left, tree.right), sub.momenta[0]
        for one, two, between in (
            (far.r, first, tree.momentum + first),
            (begin.r, sub.point.r, begin.r + sub.momentum),
        ):
            turning = xp.logical_or(turning, _turns(xp, one, two, between))
        return Tree(
            tree.depth + 1, left, right,
            _choose(ops, xp.logical_and(better, xp.logical_not(bad)), sub.proposal, tree.proposal),
            xp.logaddexp(tree.weight, sub.weight), momentum, tree.leaves + sub.leaf, tree.accept + sub.accept,
            xp.logical_or(bad, turning), sub.diverging,
        )  # fmt: skip

    return ops.while_loop(lambda t: xp.logical_and(t.depth < max_depth, xp.logical_not(t.stop)), double, tree)


def _subtree(
    key: Any,
    target: Any,
    metric: Any,
    begin: Point,
    spare: Proposal,
    step_size: Any,
    energy0: Any,
    depth: Any,
    rows: Any,
) -> Subtree:
    """2^depth leapfrog steps from a point, stopped early by a U-turn within any of its binary subtrees."""
    ops, xp = target.ops, target.ops.xp
    uniform, size = ops.stream(key), 1 << depth
    zero, no = energy0 * 0, xp.bool_(False)

    def grow(sub: Subtree) -> Subtree:
        point, log_density, gradient = leapfrog(target, metric, sub.point, step_size)
        energy = 0.5 * (point.r @ point.r) - log_density
        gain = ops.where(xp.isnan(energy), -xp.inf, energy0 - energy)
        weight = xp.logaddexp(sub.weight, gain)
        better = xp.log(uniform(sub.leaf)) < gain - weight
        momentum = sub.momentum + point.r
        turning, momenta, sums = _checkpoint(ops, sub, point.r, momentum)
        return Subtree(
            sub.leaf + 1, point, _choose(ops, better, Proposal(point.z, log_density, gradient, energy), sub.proposal),
            weight, momentum, momenta, sums, turning, gain < -ENERGY_ERROR, sub.accept + xp.exp(xp.minimum(gain, 0.0)),
        )  # fmt: skip

    def growing(sub: Subtree) -> Any:
        stopped = xp.logical_or(sub.turning, sub.diverging)
        return xp.logical_and(sub.leaf < size, xp.logical_not(stopped))

    empty = Subtree(xp.int32(0), begin, spare, zero - xp.inf, begin.r * 0, rows, rows, no, no, zero)
    return ops.while_loop(growing, grow, empty)


def _checkpoint(ops: Any, sub: Subtree, r: Any, momentum: Any) -> tuple[Any, Any, Any]:
    """Test an odd leaf against the first leaves of the subtrees that it ends; an even leaf becomes a checkpoint.

    With n = leaf in binary, the checkpoint of an even leaf goes to row popcount(n >> 1); an odd leaf with k trailing ones
    ends k subtrees, whose first leaves are in the last k rows.
    """
    xp, n = ops.xp, sub.leaf
    row = ops.popcount(n >> 1)

    def store(operands: Any) -> tuple[Any, Any, Any]:
        momenta, sums = operands
        return xp.bool_(False), ops.put(momenta, row, r), ops.put(sums, row, momentum)

    def test(operands: Any) -> tuple[Any, Any, Any]:
        momenta, sums = operands
        last = row - ops.popcount(xp.bitwise_xor(n, n + 1) >> 1) + 1

        def look(carry: Any) -> Any:
            j, _ = carry
            return j - 1, _turns(xp, momenta[j], r, momentum - sums[j] + momenta[j])

        _, turning = ops.while_loop(
            lambda c: xp.logical_and(c[0] >= last, xp.logical_not(c[1])), look, (row, xp.bool_(False))
        )
        return turning, momenta, sums

    return ops.cond((n & 1) == 0, store, test, (sub.momenta, sub.sums))


def _turns(xp: Any, left: Any, right: Any, momentum: Any) -> Any:
    """Whether the ends approach each other, judged by the sum of whitened momenta with half weight on the ends."""
    rho = momentum - 0.5 * (left + right)
    return xp.logical_or(left @ rho <= 0, right @ rho <= 0)


def _choose(ops: Any, condition: Any, new: Any, old: Any) -> Any:
    return type(old)(*(ops.where(condition, a, b) for a, b in zip(new, old, strict=True)))
