"""Diffusion in torch: the twins of what is written in JAX, closed forms of normal data, the U-Net's shapes, learners."""

import itertools

import numpy as np
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen.data import load
from probgen.data.dequantise import dequantised
from probgen.datasets import labels
from probgen.run.conditioning import conditioned

torch = pytest.importorskip("torch", reason="torch is not installed")
pyro = pytest.importorskip("pyro", reason="Pyro is not installed")

from probgen.nets.torch_diffusion import denoiser as twin  # noqa: E402
from probgen.nets.torch_diffusion import flow, grids, samplers, schedules  # noqa: E402
from probgen.nets.torch_diffusion.chains import At, Backward, Noised, levels  # noqa: E402
from probgen.nets.torch_diffusion.observed import observed  # noqa: E402
from probgen.nets.torch_diffusion.sampling import sample  # noqa: E402
from probgen.nets.torch_diffusion.site import diffused  # noqa: E402
from probgen.nets.torch_diffusion.unet import UNet  # noqa: E402

pytestmark = [needs_pyro, pytest.mark.usefixtures("one_thread")]
TIMES = np.array([0.001, 0.02, 0.3, 0.5, 0.77, 0.999])
NAMED = {
    "linear_levels": (50,), "Linear": (), "SubPreserving": (), "Cosine": (), "LinearLogSNR": (), "Exploding": (),
    "Elucidated": (), "Straight": (),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_numbers():
    """Random numbers by a seed, and torch's generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def x64():
    """JAX, its numbers double."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield jax


def tensor(x):
    return torch.tensor(np.asarray(x, float))


def rows(num=6, dim=3, seed=0):
    return np.random.default_rng(seed).normal(size=(num, dim))


# ---- twins


@pytest.mark.parametrize("name", NAMED)
def test_schedules_agree_with_those_in_jax(x64, name):
    from probgen.nets.diffusion import schedules as original

    ours, theirs = getattr(schedules, name)(*NAMED[name]), getattr(original, name)(*NAMED[name])
    t = tensor(TIMES)
    each = x64.vmap(lambda t: (*theirs.scales(t), *theirs.slopes(t), theirs.log_snr(t)))(TIMES)
    found = (*ours.scales(t), *ours.slopes(t), ours.log_snr(t))
    for a, b in zip(found, each, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    assert float(ours.first) == float(theirs.first)
    x, noise = rows(), rows(seed=1)
    expected = x64.vmap(theirs.noised)(x, noise, TIMES)
    np.testing.assert_allclose(ours.noised(tensor(x), tensor(noise), t), expected, rtol=1e-9)


def net(z, level):
    """A network of one point in JAX, and of rows in torch."""
    xp = torch if hasattr(z, "detach") else __import__("jax").numpy
    return xp.tanh(z * 1.3 - (level[:, None] if level.ndim else level) * 0.2)


@pytest.mark.parametrize(
    ("name", "kind"), [*(("Cosine", kind) for kind in twin.KINDS), ("Straight", "velocity"), ("Elucidated", "edm")]
)
def test_denoisers_agree_with_those_in_jax(x64, name, kind):
    from probgen.nets.diffusion import denoiser as original
    from probgen.nets.diffusion import schedules as theirs

    ours = twin.Network(getattr(schedules, name)(), net, kind, 0.7)
    other = original.Network(getattr(theirs, name)(), net, kind, 0.7)
    z, x, noise, t = rows(), rows(seed=1), rows(seed=2), tensor(TIMES)
    for word in ("__call__", "noise", "score", "velocity"):
        found, expected = getattr(ours, word)(tensor(z), t), x64.vmap(getattr(other, word))(z, TIMES)
        found, expected = (found[0], expected[0]) if word == "__call__" else (found, expected)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=word)
    variance = np.broadcast_to(x64.vmap(other)(z, TIMES).variance[:, None], z.shape)
    np.testing.assert_allclose(ours(tensor(z), t).variance.expand(z.shape), variance, rtol=1e-6)
    wanted = ours.wanted(tensor(x), tensor(noise), t)
    np.testing.assert_allclose(wanted, x64.vmap(other.wanted)(x, noise, TIMES), rtol=1e-6)
    noised = ours.schedule.noised(tensor(x), tensor(noise), t)
    np.testing.assert_allclose(ours.posterior(wanted, noised, t).mean, x, rtol=1e-6)  # what is wanted means x


def oracles(xp, module, schedule):
    """The exact denoisers of both modules."""
    covariance = [[1.0, 0.4, 0.0], [0.4, 0.5, -0.1], [0.0, -0.1, 2.0]]
    normal = module.Normal(schedule, xp([0.5, -1.0, 0.0]), xp(covariance))
    means, spreads = [[2.0, 0.0, 1.0], [-2.0, 1.0, 0.0]], [[0.5, 1.0, 0.2], [0.1, 0.7, 1.0]]
    return normal, module.Mixture(schedule, xp([0.3, 0.7]), xp(means), xp(spreads))


def test_oracles_agree_with_those_in_jax(x64):
    from probgen.nets.diffusion import denoiser as original
    from probgen.nets.diffusion import schedules as theirs

    ours = oracles(tensor, twin, schedules.Cosine())
    for a, b in zip(ours, oracles(x64.numpy.array, original, theirs.Cosine()), strict=True):
        found, expected = a(tensor(rows()), tensor(TIMES)), x64.vmap(b)(rows(), TIMES)
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-9)
        np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-9)
        whole = a(tensor(rows()), torch.tensor(0.3, dtype=torch.float64))  # one time for all rows
        each = a(tensor(rows()), torch.full((6,), 0.3, dtype=torch.float64))
        np.testing.assert_allclose(whole.mean, each.mean, rtol=1e-12)


def test_the_posterior_of_a_mixture_is_known():
    """.5 N(+-2, .25), alpha = .6, sigma = .8, x = .5: by quadrature."""

    class Fixed(schedules.Straight):
        def scales(self, t):
            return 0.6 * torch.ones_like(t), 0.8 * torch.ones_like(t)

    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    known = twin.Mixture(Fixed(), half, tensor([[2.0], [-2.0]]), tensor([[0.5], [0.5]]))
    z, t = tensor([[0.5]]), tensor([0.5])
    assert abs(float(known(z, t).mean) - 1.288252) < 1e-6
    assert abs(float(known.score(z, t)) - 0.426486) < 1e-6
    assert abs(float(known.noise(z, t)) + 0.341189) < 1e-6


# ---- samplers


def carried(schedule, mean, spread, z):
    """Where the probability flow takes z from time 1: (z_t - alpha mean) / sd stays as it is."""
    alpha, sigma = schedule.scales(torch.ones((), dtype=z.dtype))
    return mean + spread * (z - alpha * mean) / torch.sqrt((alpha * spread) ** 2 + sigma**2)


COSINE, EDM = schedules.Cosine(-8.0, 10.0), schedules.Elucidated()


@pytest.mark.parametrize(
    ("schedule", "name", "order"),
    [
        (COSINE, "ddim", 1),
        (COSINE, "euler", 1),
        (COSINE, "heun", 2),
        (COSINE, "dpm++", 2),
        (EDM, "heun", 2),
        (EDM, "dpm++", 2),
    ],
)
def test_samplers_follow_the_flow_at_their_order(schedule, name, order):
    mean, spread = tensor([0.3, -0.2]), tensor([0.5, 1.5])
    known = twin.Normal(schedule, mean, torch.diag(spread**2))
    z = tensor(rows(20, 2)) * schedule.scales(torch.tensor(1.0))[1]
    expected = carried(schedule, mean, spread, z)
    errors = [float(abs(sample(known, z, n, name) - expected).max()) for n in (65, 129, 257)]
    assert errors[-1] < (0.1 if order == 1 else 0.01)
    falls = [a / b for a, b in itertools.pairwise(errors)]
    assert all(fall > 0.75 * 2**order for fall in falls), errors


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpm++"])
def test_samplers_agree_with_those_in_jax(x64, name):
    from probgen.nets.diffusion import denoiser as original
    from probgen.nets.diffusion import samplers as others
    from probgen.nets.diffusion import sampling
    from probgen.nets.diffusion import schedules as theirs

    told = lambda known: {k: (s.grid, s.evaluations) for k, s in known.items()}  # noqa: E731
    assert told(samplers.SAMPLERS) == told(others.SAMPLERS)
    z, key = rows(4, 3), x64.random.key(0)
    for schedule in ("Cosine", "Straight", "Elucidated"):
        kind = "velocity" if schedule == "Straight" else "point"
        ours = twin.Network(getattr(schedules, schedule)(), net, kind, 0.7)
        other = original.Network(getattr(theirs, schedule)(), net, kind, 0.7)
        expected = x64.vmap(lambda z, other=other: sampling.sample(other, key, z, 9, name))(x64.numpy.array(z))
        np.testing.assert_allclose(sample(ours, tensor(z), 9, name), expected, rtol=1e-6, atol=1e-7, err_msg=schedule)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_the_network_is_asked_as_often_as_said(name):
    asked = []

    def count(z, level):
        asked.append(len(z))
        return torch.zeros_like(z)

    counted = twin.Network(schedules.Straight(), count, "velocity")
    for num in (1, 4, 9):
        asked.clear()
        found = sample(counted, torch.randn(5, 4, 4), num, name)
        assert found.shape == (5, 4, 4)
        assert found.isfinite().all()
        assert asked == [5] * (num if name != "heun" else 1 + 2 * ((num - 1) // 2))


@pytest.mark.parametrize("name", ["ancestral", "sde"])
def test_stochastic_samplers_draw_what_the_data_are(name):
    """N(.3, .25) in 20,000 rows: mean and sd within five standard errors of what 200 steps draw; a seed draws the same again."""
    sampler = samplers.Ancestral("posterior") if name == "ancestral" else name
    known = twin.Normal(schedules.Cosine(), tensor([0.3]), tensor([[0.25]]))
    z = tensor(rows(20_000, 1))
    draw = lambda: sample(known, z, 200, sampler, generator=torch.Generator().manual_seed(0))  # noqa: E731
    x = draw()
    assert abs(float(x.mean()) - 0.3) < 5 * 0.5 / 20_000**0.5
    assert abs(float(x.std()) - 0.5) < 5 * 0.5 / 40_000**0.5 + 0.003
    assert torch.equal(x, draw())


def test_grids_begin_at_the_start_and_fall():
    for schedule in (schedules.Cosine(), schedules.Straight(), schedules.Elucidated(), schedules.linear_levels(100)):
        for kind in grids.GRIDS:
            times = grids.grid(schedule, 7, 1.0, kind)
            assert times[0] == 1
            assert (times.diff() < 0).all()
            assert times[-1] >= schedule.first
    with pytest.raises(ValueError, match=r"Unknown times 'leading'\. Known: even, log_snr, rho"):
        grids.grid(schedules.Cosine(), 7, 1.0, "leading")
    with pytest.raises(ValueError, match="expected an array that falls"):
        grids.told(schedules.Cosine(), [0.5, 0.7])
    with pytest.raises(ValueError, match=r"Unknown sampler 'ddmp'\. Known: ancestral, ddim"):
        samplers.named("ddmp")


# ---- the U-Net


@pytest.mark.parametrize("shape", [(8, 8), (14, 14), (7, 9, 1), (28, 28, 3)])
def test_the_unet_gives_pictures_of_the_shape_that_it_takes(shape):
    channels = shape[2] if len(shape) == 3 else 1
    unet = UNet(channels, (8, 16, 24), 1, num_classes=3, attention=True)
    for weight in unet.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    x, noise = torch.randn(4, *shape), torch.tensor([-3.0, 0.0, 1.0, 4.0])
    with torch.no_grad():
        found = unet(x, noise, torch.tensor([0, 1, 2, -1]))
        assert found.shape == x.shape
        assert torch.allclose(
            found[1:3], unet(x[1:3], noise[1:3], torch.tensor([1, 2])), atol=1e-5
        )  # rows by themselves
        assert torch.allclose(found[3:], unet(x[3:], noise[3:]), atol=1e-5)  # -1 is no label
        with pytest.raises(IndexError):
            unet(x, noise, torch.tensor([0, 1, 2, 3]))
        for other in (unet(x, noise + 1, torch.tensor([0, 1, 2, -1])), unet(x, noise, torch.tensor([1, 2, 0, 0]))):
            assert ((other - found).abs().flatten(1).amax(1) > 1e-4).all()  # level and label are seen in every row


def test_the_unet_is_small_unless_told_and_sizes_are_checked():
    assert sum(p.numel() for p in UNet().parameters()) < 500_000
    with pytest.raises(ValueError, match=r"A U-Net's widths are \(16, 20\); 20 is no multiple of 8"):
        UNet(1, (16, 20))
    with pytest.raises(ValueError, match="num_blocks is 0; it must be at least 1"):
        UNet(1, num_blocks=0)


# ---- the bound

NODES = np.array([-(3**0.5), 0.0, 3**0.5]), np.array([1.0, 4.0, 1.0]) / 6  # of a normal: right for quadratics


def quadrature(chain, schedule, s, times=None):
    """KL(q || p) of rows N(0, s^2) and -E log p(x | z_1): exact sums over levels and the nodes of x and noise."""
    count = max(len(chain.times) - 1, 1) if times is None else len(times)
    e, weights = NODES
    grid = np.stack(np.meshgrid(np.arange(count), e, e, indexing="ij"), -1).reshape(-1, 3)
    weight = tensor((weights[:, None] * weights).ravel()).repeat(count)
    x, noise = tensor(s * grid[:, 1:2]), tensor(grid[:, 2:])
    index = torch.tensor(grid[:, 0]).long()
    q = Noised(x, schedule, chain.times)
    time = tensor((grid[:, 0] + 0.5) / count) if times is None else tensor(times)[index]
    at = At(index + 1, time, noise, schedule.noised(x, noise, chain.times[(index + 1).clamp(max=len(chain.times) - 1)]))
    gap = (
        (weight * chain.gap(q, at)).sum() / count
        if times is None
        else (weight * chain.gap(q, at)).reshape(count, -1).sum(1)
    )
    first = slice(0, 9)
    mean, scale = chain.last(schedule.noised(x[first], noise[first], chain.times[0]))
    recon = (0.5 * ((x[first] - mean) / scale) ** 2 + torch.log(scale) + 0.5 * np.log(2 * np.pi))[:, 0]
    return gap, (weight[first] * (recon + chain.end_gap(q)[first])).sum()


def exact_chain(schedule, times, s, variance, continuous=False):
    known = twin.Normal(schedule, tensor([0.0]), tensor([[s**2]]))
    chain = Backward(known, (1,), times, variance, continuous)
    chain.times = times.double()  # built where numbers are single
    return chain


@pytest.mark.parametrize(("s", "gap"), [(1.0, 0.0), (0.5, 0.001092), (0.1, 0.01959)])
def test_the_bound_of_ddpm_is_that_of_its_closed_form(s, gap):
    schedule = schedules.linear_levels(1000)
    chain = exact_chain(schedule, levels(schedule, 1000), s, "beta")
    inner, ends = quadrature(chain, schedule, s)
    entropy = 0.5 * np.log(2 * np.pi * np.e * s**2)
    assert abs(float(inner + ends) - entropy - gap) < 3e-6


@pytest.mark.parametrize(("steps", "loss"), [(10, 15.72756), (100, 6.48569), (1000, 6.00624)])
def test_the_loss_of_vdm_is_that_of_its_closed_form(steps, loss):
    schedule = schedules.LinearLogSNR()
    inner, _ = quadrature(exact_chain(schedule, torch.linspace(0, 1, steps + 1), 0.5, "bridge"), schedule, 0.5)
    assert abs(float(inner) - loss) < 1e-4 * loss


def test_the_loss_of_infinitely_many_levels_is_its_integral():
    schedule = schedules.LinearLogSNR()
    chain = exact_chain(schedule, torch.linspace(0, 1, 5), 0.5, "bridge", continuous=True)
    at, weights = np.polynomial.legendre.leggauss(60)
    each, ends = quadrature(chain, schedule, 0.5, times=(at + 1) / 2)
    assert abs(float((tensor(weights / 2) * each).sum()) - 5.956015) < 1e-5
    assert abs(float((tensor(weights / 2) * each).sum() + ends) - 0.725801) < 1e-4


def test_a_random_level_stands_for_the_whole_chain():
    """At T = 4 the mean of log p - log q over whole chains is that of the parts; within five standard errors."""
    schedule = schedules.linear_levels(4)
    known = twin.Normal(schedule, torch.tensor([0.3, 0.0]), torch.tensor([[0.5, 0.2], [0.2, 1.0]]))
    chain = Backward(known, (2,), levels(schedule, 4), batch=(40_000,))
    q = Noised(torch.randn(40_000, 2), schedule, chain.times)
    whole = q.sample()
    direct = q.log_prob(whole) - chain.log_prob(whole)
    parts = chain.end_gap(q) + chain.gap(q, q.level())
    error = (direct.var() / 40_000 + parts.var() / 40_000).sqrt()
    assert abs(float(direct.mean() - parts.mean())) < 5 * float(error)
    assert float(error) < 0.04
    drawn = chain.sample()
    assert drawn.shape == (40_000, 4, 2)
    assert abs(float(chain.first().std() - drawn[:, 0].std())) < 0.02


# ---- the density of a flow


def test_the_density_of_a_flow_is_that_of_its_data():
    """Normal data: log p of the probability flow is theirs; by probes within their error, 1.47 a probe at correlation .9."""
    covariance = tensor([[1.0, 0.9], [0.9, 1.0]])
    known = twin.Normal(schedules.LinearLogSNR(13.3, -13.3), tensor([0.2, -0.1]), covariance)
    x = tensor(rows(200, 2))
    found = flow.density(known.velocity, x, 0.0, 1.0)
    data = torch.distributions.MultivariateNormal(tensor([0.2, -0.1]), covariance)
    expected = data.log_prob(x)  # beside the ends: alpha(1), sigma(0) = .0013
    assert float(((found.value - expected) / (1 - expected)).abs().max()) < 2e-4
    assert float(found.solver.max()) < 1e-3
    probed = flow.density(known.velocity, x[:50], 0.0, 1.0, flow.Solver(1e-4, 1e-4), exact=False, num_probes=20)
    z = (probed.value - found.value[:50]) / (1.4722 / 20**0.5)
    assert 0.5 < float(z.std()) < 1.6
    assert abs(float(probed.probes.mean()) / (1.4722 / 20**0.5) - 1) < 0.2


def test_a_solve_that_gives_up_is_nan_and_a_tolerance_is_checked():
    known = twin.Normal(schedules.LinearLogSNR(), tensor([0.0]), tensor([[0.25]]))
    found = flow.density(known.velocity, tensor([[0.5], [1.0]]), 0.0, 1.0, flow.Solver(max_steps=3))
    assert found.value.isnan().all()
    with pytest.raises(ValueError, match="below what float32 can hold"):
        flow.density(known.velocity, torch.ones(2, 1), 0.0, 1.0, flow.Solver(1e-8, 1e-8))


# ---- fits: 8 x 8 digits by a net of 7,000 numbers

SMALL = {"width": 8, "halvings": 1, "num_blocks": 1}
LEARN = {"num_steps": 60, "batch_size": 32, "learning_rate": 0.01, "progress": False, "seed": 1}


def digits(whole=False, classes=False):
    x, label = load("digits_grey")[:600], labels("digits_grey")[:600]
    given = {"x": np.rint(16 * x).astype(int) if whole else dequantised(16 * x, levels=17), **SMALL}
    return given | ({"label": label} if classes else {})


@pytest.fixture(scope="module")
def learned():
    return pg.fit("velocity_images", digits(classes=True), "flow_matching", **LEARN)


@pytest.fixture(scope="module")
def chained():
    return pg.fit("ddpm_images", {**digits(whole=True), "num_levels": 50}, "denoising", **LEARN)


def fell(fit, factor):
    """Whether the mean loss of the last ten steps is below a share of the first."""
    loss = fit.records["loss"][0]
    assert np.isfinite(loss).all()
    return loss[-10:].mean() < factor * loss[0]


def test_flow_matching_learns_pictures_and_draws_them(learned):
    assert fell(learned, 0.8)
    with pytest.raises(TypeError, match="label"):
        learned.sample(4)
    for ask in (
        lambda f: f.sample(1, label=10),
        lambda f: f.sample(1, label=10, sampler="ddim"),
        lambda f: f.trajectory(1, label=10),
    ):
        with pytest.raises(
            ValueError, match=r"label\[0\] is 10; it is from 0 to 9 where it was learned from, or -1 for any"
        ):
            ask(learned)
    for how in ({}, {"sampler": "ddim", "num_steps": 5}, {"sampler": "dpm++", "num_steps": 5, "guidance": 2.0}):
        x = learned.sample(6, label=[0, 1, 2, 3, 4, 5], seed=3, **how)["x"]
        assert x.shape == (6, 8, 8)
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(x, learned.sample(6, label=[0, 1, 2, 3, 4, 5], seed=3, **how)["x"])
    same, conditional = (
        learned.sample(6, label=3, seed=3, sampler="ddim", num_steps=4, **g)["x"] for g in ({}, {"guidance": 1.0})
    )
    np.testing.assert_array_equal(same, conditional)
    with pytest.raises(ValueError, match="Unknown sampler 'ddmp'"):
        learned.sample(4, label=3, sampler="ddmp")


def test_the_density_of_pictures_by_an_ode_is_told_with_its_error(learned):
    found = learned.log_prob(**{k: v[:2] for k, v in digits(classes=True).items() if k in ("x", "label")})
    assert found.kind == "ODE density"
    assert found.value.shape == (2,)
    assert (found.stderr > 0).all()
    assert np.isfinite(found.value).all()


def test_denoising_learns_a_chain_whose_bound_is_told(chained):
    assert fell(chained, 0.65)
    x = digits(whole=True)["x"][:40]
    bound = chained.log_prob(x, num_draws=50)
    assert bound.kind == "lower bound: chain"
    assert -64 * np.log(17) * 1.5 < bound.value.mean() < 0
    again = chained.log_prob(x, num_draws=50, seed=9)
    z = (bound.value - again.value) / np.hypot(bound.stderr, again.stderr)
    assert np.abs(z).mean() < 2
    drawn = chained.sample(5, seed=0)["x"]
    assert set(np.unique(drawn)) <= set(range(17))
    quick, other = (chained.sample(5, seed=0, sampler="heun", num_steps=9, times=t)["x"] for t in (None, "rho"))
    assert set(np.unique(quick)) <= set(range(17))
    assert (quick != other).any()
    rho, even = (chained.trajectory(2, num_steps=9, times=t) for t in ("rho", "even"))
    assert even["times"][:-1] == pytest.approx(np.linspace(1, even["times"][-2], len(even["times"]) - 1), abs=1e-5)
    assert not np.allclose(even["times"], rho["times"])
    assert np.array_equal(even["z"][:, 0], rho["z"][:, 0])
    assert (even["z"] != rho["z"]).any()


def test_the_bound_itself_is_raised_by_svi():
    data = {**digits(whole=True), "num_levels": 50}
    fit = pg.fit("ddpm_images", data, "svi", **LEARN)
    assert fell(fit, 0.8)
    assert fit.log_prob(data["x"][:40]).value.mean() > -64 * np.log(17)  # better than even


def test_a_run_goes_on_bit_for_bit(tmp_path, killed):
    settings = {k: v for k, v in LEARN.items() if k != "progress"} | {"num_steps": 60}
    whole = pg.fit("edm_images", digits(classes=True), "denoising", out=tmp_path / "whole", **settings)
    killed(pg.fit, "edm_images", digits(classes=True), "denoising", out=tmp_path / "part", **settings)
    for fit in (pg.resume(tmp_path / "part"), pg.load(tmp_path / "whole")):
        assert set(fit.answer) == set(whole.answer)
        for name, value in whole.answer.items():
            np.testing.assert_array_equal(fit.answer[name], value)
        np.testing.assert_array_equal(fit.records["loss"], whole.records["loss"])


# ---- programs as their authors write them, and what is refused


class Plane:
    """A network of the author's own, and programs with it: a module made once, registered at every run."""

    def __init__(self, extra=0):
        self.net = torch.nn.Sequential(torch.nn.Linear(3 + extra, 32), torch.nn.SiLU(), torch.nn.Linear(32, 2))
        self.embedded = torch.nn.Embedding(2, extra) if extra else None
        self.schedule = schedules.linear_levels(20)

    def denoiser(self, schedule, kind, *given):
        f = pyro.module("f", self.net)
        return twin.Network(schedule, lambda z, level: f(torch.cat([z, level[:, None], *given], 1)), kind)

    def chain(self, x, seen=0):
        chain = Backward(self.denoiser(self.schedule, "v"), (2,), levels(self.schedule, 20))
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", chain)
            pyro.sample("x", observed(*chain.last(z[:, seen])), obs=x)

    def further(self, x):
        self.chain(x, seen=1)

    def guide(self, x):
        with pyro.plate("row", len(x)):
            pyro.sample("z", Noised(x, self.schedule, levels(self.schedule, 20)))

    def other_guide(self, x):
        with pyro.plate("row", len(x)):
            pyro.sample("z", Noised(x, COSINE, levels(COSINE, 20)))

    def labelled(self, x, label):
        e = pyro.module("e", self.embedded)
        denoiser = self.denoiser(schedules.Straight(), "velocity", e(label))
        with pyro.plate("row", len(x)):
            pyro.sample("x", diffused(denoiser, (2,)), obs=x)

    def looked_up(self, x, label):
        table = pyro.param("table", torch.arange(6.0).reshape(2, 3))
        denoiser = self.denoiser(schedules.Straight(), "velocity", table[label])
        with pyro.plate("row", len(x)):
            pyro.sample("x", diffused(denoiser, (2,)), obs=x)


PLANE = {"num_steps": 50, "batch_size": 64, "progress": False}


def test_a_chain_of_ones_own_learns_by_either_learner_and_bound_and_flow_agree():
    own, x = Plane(), rows(400, 2)
    for inference in ("denoising", "svi"):
        fit = pg.fit(pg.Model(own.chain, guide=own.guide), {"x": x}, inference, learning_rate=0.01, **PLANE)
        bound, ode = (fit.log_prob(x[:100], method=method).value.mean() for method in ("bound", "ode"))
        assert abs(bound - ode) < 1.0
        assert abs(ode + 2.84) < 1.0  # the entropy of N(0, I)


def test_programs_that_cannot_be_learned_say_why():
    own, x = Plane(), {"x": rows(100, 2)}
    with pytest.raises(ValueError, match="the guide that makes the noise is missing"):
        pg.fit(own.chain, x, "denoising", **PLANE)
    with pytest.raises(
        ValueError, match=r"from a log SNR of 10 to -8, the program's from 5\.29 to -23\.6: give both one"
    ):
        pg.fit(pg.Model(own.chain, guide=own.other_guide), x, "svi", **PLANE)
    with pytest.raises(ValueError, match="looks at levels of its chain beyond the first"):
        pg.fit(pg.Model(own.further, guide=own.guide), x, "svi", **PLANE)


def test_labels_are_hidden_and_checked():
    own, x = Plane(extra=3), {"x": rows(100, 2), "label": np.arange(100) % 2}
    with pytest.raises(ValueError, match="does not take -1 for 'label', which says that it is hidden"):
        pg.fit(own.labelled, x, "flow_matching", **PLANE)
    with pytest.raises(ValueError, match="label"):
        pg.fit(own.labelled, x | {"label": np.arange(100) % 3}, "flow_matching", unlabelled=0.0, **PLANE)
    fit = pg.fit(own.labelled, x, "flow_matching", unlabelled=0.0, **PLANE)
    assert fit.sample(3, label=1)["x"].shape == (3, 2)
    with pytest.raises(ValueError, match="label"):
        fit.sample(3, label=5)


def test_a_table_that_takes_a_hidden_label_for_its_last_is_refused():
    own, x = Plane(extra=3), {"x": rows(100, 2), "label": np.arange(100) % 2}
    with pytest.raises(
        ValueError, match="The program takes -1 for 'label', which says that it is hidden, as its last value"
    ):
        pg.fit(own.looked_up, x, "flow_matching", **PLANE)
    assert pg.fit(own.looked_up, x, "flow_matching", unlabelled=0.0, **PLANE).complete


def test_times_beyond_the_schedule_are_refused():
    with pytest.raises(ValueError, match="Choose log_mean and log_sd among them"):
        pg.fit("edm_images", digits(), "denoising", times="normal", log_mean=50.0, **PLANE)


def test_whole_numbers_and_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="x holds whole numbers, or grey in equal steps"):
        pg.fit("velocity_images", {"x": load("digits_grey")[:100]}, "flow_matching", **PLANE)
    with pytest.raises(ValueError, match="num_levels is 0; it must be at least 2"):
        pg.fit("ddpm_images", digits(whole=True) | {"num_levels": 0}, "denoising", **PLANE)
    with pytest.raises(ValueError, match="betas lie between 0 and 1"):
        schedules.Levels([0.1, -0.2])
    with pytest.raises(ValueError, match="A schedule's low is below its high; got 3 and 1"):
        schedules.Cosine(3.0, 1.0)


class Rising(schedules.Preserving):
    first = 0.0

    def log_snr(self, t):
        return 6 * torch.cos(9 * t)

    def fall(self, t):
        return -54 * torch.sin(9 * t)


class Weighed(Plane):
    """Chains that count for something else than they say, or that are two, or whose guide noises something else."""

    denoising = twin.Normal(schedules.linear_levels(20), torch.zeros(2), torch.eye(2))

    def weighed(self, x, scale=1.0, mask=True, second=False):
        chain = Backward(self.denoising, (2,), levels(self.schedule, 20))
        weight = pyro.param("weight", torch.ones(()))
        with pyro.plate("row", len(x)):
            if second:
                pyro.sample("w", chain)
            with pyro.poutine.scale(scale=scale):
                z = pyro.sample("z", chain if mask else chain.mask(False))
            mean, sd = chain.last(z[:, 0])
            pyro.sample("x", pyro.distributions.Normal(weight * mean, sd).to_event(1), obs=x)

    def two(self, x):
        with pyro.plate("row", len(x)):
            for name in "zw":
                pyro.sample(name, Noised(x, self.schedule, levels(self.schedule, 20)))

    def cubing(self, x):
        self.guide(x**3)

    def rising(self, x):
        with pyro.plate("row", len(x)):
            pyro.sample("x", diffused(self.denoiser(Rising(), "noise"), (2,)), obs=x)


def test_chains_that_count_for_something_else_are_refused():
    """Scale and mask were once ignored in silence."""
    own, x = Weighed(), rows(100, 2)
    for program in (lambda x: own.weighed(x, scale=0.1), lambda x: own.weighed(x, mask=False)):
        with pytest.raises(ValueError, match="The chain 'z' has a scale or a mask"):
            pg.fit(pg.Model(program, guide=own.guide), {"x": x}, "svi", **PLANE)
    with pytest.raises(pg.Incompatible, match="The program has 2 chains: z, w"):
        pg.fit(pg.Model(lambda x: own.weighed(x, second=True), guide=own.two), {"x": x}, "denoising", **PLANE)


def test_a_schedule_of_ones_own_that_rises_is_refused():
    with pytest.raises(ValueError, match=r"does not fall with time: it rises after t = 0\.516"):
        pg.fit(Weighed().rising, {"x": rows(40, 2)}, "denoising", **PLANE)


def test_a_chain_of_another_function_of_the_rows_has_its_own_draws_alone():
    own, x = Weighed(), rows(100, 2)
    fit = pg.fit(pg.Model(own.chain, guide=own.cubing), {"x": x}, "denoising", **PLANE | {"num_steps": 2})
    assert np.isfinite(fit.log_prob(x[:3]).value).all()
    for ask in (
        lambda: fit.sample(2, sampler="ddim"),
        lambda: fit.log_prob(x[:3], method="ode"),
        lambda: fit.trajectory(2),
        lambda: fit.interpolate(x[0], x[1]),
    ):
        with pytest.raises(pg.Incompatible, match="another function of 'x'"):
            ask()


def test_a_denoiser_without_a_network_says_the_noise():
    exact = twin.Normal(schedules.Linear(), torch.zeros(2), 4 * torch.eye(2))
    z, t = torch.tensor([[1.0, -2.0]]), torch.tensor([0.3])
    alpha, sigma = exact.schedule.scales(t)
    want = sigma * z / (4 * alpha**2 + sigma**2)
    torch.testing.assert_close(exact.said(z, t), want)
    torch.testing.assert_close(exact.wanted(z, 2 * z, t), 2 * z)


def test_a_loose_solver_of_the_program_is_told():
    def flowing(x, solver=None):
        with pyro.plate("row", len(x)):
            pyro.sample(
                "x", diffused(Weighed.denoising, (2,), spread=pyro.param("s", torch.ones(())), solver=solver), obs=x
            )

    for solver, told in ((None, ""), (flow.Solver(0.3, 0.1), "tolerance 0.3")):
        target = conditioned(lambda x, s=solver: flowing(x, s), {"x": rows(40, 2)})[1]
        assert target.rough_solver() == told
