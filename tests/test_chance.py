"""Programs that are another one at every run, by random numbers or the clock in Python, are refused; noise that is held is told."""

import random
import time

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import ENGINES, needs_pyro

from probgen.run import conditioned

Y = np.random.default_rng(0).normal(1.0, 1.0, 6)
OWN = np.random.default_rng(3)
SHIFTS = {
    "numpy": lambda: np.random.normal(),  # noqa: NPY002
    "a generator": lambda: np.random.default_rng().normal(),
    "a generator of the user's": lambda: OWN.normal(),
    "Python": lambda: random.random(),
    "the clock": lambda: time.time() % 7,
}


def shifted(engine, shift):
    if engine == "numpyro":

        def program(y):
            m = numpyro.sample("m", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(m, 1.0).expand([6]).to_event(1), obs=y + shift())

        return program
    import pyro
    import pyro.distributions as pd

    def program(y):
        m = pyro.sample("m", pd.Normal(0.0, 1.0))
        pyro.sample("y", pd.Normal(m, 1.0).expand([6]).to_event(1), obs=y + shift())

    return program


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shift", SHIFTS)
def test_what_is_another_program_at_every_run_is_refused(engine, shift):
    """At the second time as well, where the program is compiled already."""
    program, states = shifted(engine, SHIFTS[shift]), (np.random.get_state(), random.getstate())  # noqa: NPY002
    for _ in range(2):
        with pytest.raises(ValueError, match="another density at every run"):
            conditioned(program, {"y": Y})
    np.random.set_state(states[0])  # noqa: NPY002
    random.setstate(states[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_numbers_of_a_fixed_seed_are_numbers(engine):
    target = conditioned(shifted(engine, lambda: np.random.default_rng(0).normal()), {"y": Y})[1]
    assert target.dim == 1
    assert not target.notes


@needs_pyro
def test_noise_of_torch_that_is_held_is_told():
    import torch

    with torch.random.fork_rng():
        assert "held throughout" in conditioned(shifted("pyro", lambda: torch.randn(())), {"y": Y})[1].notes[0]
        dropped = torch.nn.Dropout().eval()
        assert not conditioned(shifted("pyro", lambda: dropped(torch.ones(()))), {"y": Y})[1].notes
