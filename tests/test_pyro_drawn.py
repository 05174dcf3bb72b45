"""Discrete unknowns of Pyro programs that a guide draws: those that cannot be listed or summed out. Against exact sums."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.engine.pyro import engine
from probgen.engine.pyro.executor import OPS

Y = np.array([3.0, 5.5, 4.0])
NOISE, RATE, MOST = 1.5, 4.0, 60
COUNTS = np.arange(MOST)


def counted(y):
    with pyro.plate("n", len(y)):
        k = pyro.sample("k", dist.Poisson(RATE))
        pyro.sample("y", dist.Normal(k, NOISE), obs=y)


def log_joint():
    """log p(k, y) of every row and count: (row, count)."""
    k = torch.arange(float(MOST), dtype=torch.float64)
    y = torch.as_tensor(Y)[:, None]
    return (dist.Poisson(torch.tensor(RATE).double()).log_prob(k) + dist.Normal(k, NOISE).log_prob(y)).numpy()


def exact(y):
    """A guide that is the posterior itself."""
    with pyro.plate("n", len(y)):
        pyro.sample("k", dist.Categorical(logits=torch.as_tensor(log_joint())))


def rates(y):
    rate = pyro.param("rate", torch.tensor([3.0, 4.0, 5.0]), constraint=dist.constraints.positive)
    with pyro.plate("n", len(y)):
        pyro.sample("k", dist.Poisson(rate))


def paired(program, guide, **data):
    target = engine.guided(engine.prepare(program, data, by_row=False), guide, None)
    target = target.marginalise()
    target.author_guide = guide
    return target.paired()


def test_log_p_minus_log_q_of_the_posterior_is_the_evidence():
    pair = paired(counted, exact, y=Y)
    z, log_q = pair.guide_draws(OPS.key(0), np.zeros(0), 50)
    evidence = np.logaddexp.reduce(log_joint(), axis=1).sum()
    np.testing.assert_allclose(pair.log_density_batch(z) - log_q, evidence, rtol=1e-9)
    assert len(np.unique(z)) > 3


@pytest.mark.parametrize("kind", ["trace", "graph"])
def test_the_gradient_is_that_of_the_elbo_by_sums(kind):
    from probgen.inference.variational.guided_svi import Elbo

    u = torch.log(torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64)).requires_grad_()
    k = torch.arange(float(MOST), dtype=torch.float64)
    log_q = dist.Poisson(u.exp()[:, None]).log_prob(k)
    loss = (log_q.exp() * (log_q - torch.as_tensor(log_joint()))).sum()
    loss.backward()
    pair = paired(counted, rates, y=Y)
    bound = Elbo(kind, 8, 0.0)
    got = [pair.guide_loss_and_gradient(OPS.key(i), u.detach().numpy(), bound) for i in range(120)]
    losses, gradients = np.array([x for x, _ in got]), np.array([g for _, g in got])
    for value, mean in ((losses, loss.item()), (gradients, u.grad.numpy())):
        z = (value.mean(0) - mean) / (value.std(0) / np.sqrt(len(value)))
        assert np.all(np.abs(z) < 4.5), z  # four numbers: false alarms of 3e-5


def test_a_fit_draws_counts_beside_reals():
    def program(y):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Geometric(0.3))
        pyro.sample("y", dist.Normal(k + shift, 1.0).expand([3]).to_event(1), obs=y)

    def guide(y):
        p = pyro.param("p", torch.tensor(0.3), constraint=dist.constraints.unit_interval)
        pyro.sample("k", dist.Geometric(p))
        pyro.sample("shift", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    found = pg.fit(program, {"y": Y}, "svi", guide=guide, num_steps=5, num_draws=10, progress=False)
    k = found.posterior["k"].values
    assert found.posterior["shift"].shape == k.shape == (4, 10)
    assert np.all(k == np.rint(k))
    assert len(np.unique(k)) > 2
    with pytest.raises(Incompatible, match="draws 'k'"):
        pg.fit(program, {"y": Y}, "nuts", guide=guide, progress=False)
    with pytest.raises(ValueError, match=r"(?s)'k' \(Geometric\).*give a guide that draws it"):
        pg.fit(program, {"y": Y}, "nuts", progress=False)


def test_a_guide_draws_what_enumeration_cannot_follow():
    def program(y):
        present = pyro.sample("present", dist.Bernoulli(0.7).expand([3]).to_event(1))
        where = 2.0 if present.sum() > 1.5 else -2.0  # Python's if
        pyro.sample("y", dist.Normal(where, 1.0).expand([3]).to_event(1), obs=y)

    def guide(y):
        p = pyro.param("p", 0.5 * torch.ones(3), constraint=dist.constraints.unit_interval)
        pyro.sample("present", dist.Bernoulli(p).to_event(1))

    pair = paired(program, guide, y=Y)
    z, log_q = pair.guide_draws(OPS.key(1), np.zeros(3), 40)
    np.testing.assert_allclose(log_q, 3 * np.log(0.5), rtol=1e-9)
    where = np.where(z.sum(1) > 1.5, 2.0, -2.0)
    log_p = np.where(z == 1, np.log(0.7), np.log(0.3)).sum(1)
    log_p += dist.Normal(torch.as_tensor(where)[:, None], 1.0).log_prob(torch.as_tensor(Y)).sum(1).numpy()
    np.testing.assert_allclose(pair.log_density_batch(z), log_p, rtol=1e-6)


def test_a_baseline_of_the_guide_is_learned():
    def guide(y):
        rate = pyro.param("rate", torch.tensor([3.0, 4.0, 5.0]), constraint=dist.constraints.positive)
        base = pyro.param("base", torch.tensor(0.0))
        with pyro.plate("n", len(y)):
            pyro.sample("k", dist.Poisson(rate), infer={"baseline": {"baseline_value": base.expand(3)}})

    found = pg.fit(
        counted,
        {"y": Y},
        "svi",
        guide=guide,
        elbo="graph",
        num_steps=20,
        num_draws=5,
        learning_rate=0.1,
        progress=False,
    )
    assert np.all(np.isfinite(found.posterior["k"].values))


def test_a_guide_draws_a_program_of_finite_unknowns_alone():
    """A Bayesian net, its posterior as the guide: log p - log q is the evidence."""

    def net(wet):
        rain = pyro.sample("rain", dist.Bernoulli(0.2))
        sprinkler = pyro.sample("sprinkler", dist.Bernoulli(torch.where(rain > 0, 0.01, 0.4)))
        pyro.sample("wet", dist.Bernoulli(torch.where(rain + sprinkler > 0, 0.9, 0.05)), obs=wet)

    table = {
        (r, s): (0.2 if r else 0.8) * abs((1 - s) - (0.01 if r else 0.4)) * (0.9 if r or s else 0.05)
        for r in (0, 1)
        for s in (0, 1)
    }
    evidence = sum(table.values())
    of_rain = (table[1, 0] + table[1, 1]) / evidence

    def guide(wet):
        rain = pyro.sample("rain", dist.Bernoulli(of_rain))
        given = [table[r, 1] / (table[r, 0] + table[r, 1]) for r in (0, 1)]
        pyro.sample("sprinkler", dist.Bernoulli(torch.where(rain > 0, given[1], given[0])))

    found = pg.fit(net, {"wet": np.array(1.0)}, "svi", guide=guide, num_steps=3, num_draws=500, progress=False)
    rain = found.posterior["rain"].values
    assert abs(rain.mean() - of_rain) < 4.5 * np.sqrt(of_rain * (1 - of_rain) / rain.size)
    pair = found.target
    z, log_q = pair.guide_draws(OPS.key(0), np.zeros(0), 20)
    np.testing.assert_allclose(pair.log_density_batch(z) - log_q, np.log(evidence), rtol=1e-6)
