"""What a run holds in memory and on disk as it grows: records of their own size, checkpoints, draws read lazily."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpyro
import numpyro.distributions as dist
import pytest

from probgen import engine
from probgen.algorithm import Sampler
from probgen.target import Continuous


class State(NamedTuple):
    z: Any
    log_density: Any


class Info(NamedTuple):
    z: Any
    lp: Any


@dataclass(frozen=True, kw_only=True)
class Draws(Sampler[Continuous]):
    """Independent draws from a standard normal, whatever the target: the least that a kernel can compute."""

    def init(self, key, target):
        return State(target.ops.normal(key, (target.dim,)), target.ops.xp.zeros(()))

    def step(self, key, state, target):
        z = target.ops.normal(key, (target.dim,))
        return State(z, z @ z), Info(z, z @ z)


class Many(Draws):
    """The same, all chains in one step."""

    steady: ClassVar[bool] = True


def program():
    a = numpyro.sample("a", dist.Normal().expand([3]).to_event(1))
    numpyro.sample("b", dist.LogNormal())
    numpyro.deterministic("c", a @ a)


@pytest.mark.parametrize(("algorithm", "chains"), [(Draws, 2), (Many, 64)])
def test_records_of_a_chunk_hold_no_more_than_its_steps(algorithm, chains):
    """A chunk is computed into buffers of one size: a view of them kept for each would fill the memory with nothing."""
    target = engine.load("numpyro").prepare(program, {})
    found = engine.load("numpyro").Executor(algorithm(num_chains=chains, num_warmup=0), target, 0, chains)
    found.init()
    assert found.capacity > 100
    records = found.advance(0, 5)
    assert records["z"].shape == (chains, 5, 4)
    for value in records.values():
        held = value if value.base is None else value.base
        assert held.nbytes == value.nbytes
