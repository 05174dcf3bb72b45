"""Pyro programs without a density, and the game in torch: NumPyro's losses, closed forms, runs that go on, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen import catalog, runtime
from probgen.algorithm import Incompatible
from probgen.run import conditioned
from probgen.target import Generative, Implicit

torch = pytest.importorskip("torch", reason="torch is not installed")
pyro = pytest.importorskip("pyro", reason="Pyro is not installed")

import pyro.distributions as dist  # noqa: E402
from torch import nn  # noqa: E402

from probgen.engine.pyro import engine  # noqa: E402
from probgen.engine.pyro.programs.density import scoped  # noqa: E402
from probgen.inference.adversarial._torch import _augment, _weights  # noqa: E402

pytestmark = [needs_pyro, pytest.mark.usefixtures("one_thread")]


def points(rows=200, dim=2, seed=0):
    return np.random.default_rng(seed).normal(1.0, 0.5, (rows, dim))


def made(inputs, outputs):
    """A layer, whose weights are drawn without leaving a trace in torch's generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(inputs, outputs)


class Net:
    """A generator as its author would write it for Pyro alone: a module made once, registered at every run."""

    def __init__(self, dim=2, inputs=2):
        self.net = nn.Sequential(made(inputs, 8), nn.Tanh(), made(8, dim))

    def program(self, x):
        f = pyro.module("f", self.net)
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Delta(f(z)).to_event(1), obs=x)

    def event(self, x):
        f = pyro.module("f", self.net)
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Delta(f(z), event_dim=1), obs=x)

    def shared(self, x):
        f = pyro.module("f", self.net)
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Delta(f(z), event_dim=1), obs=x)

    def labelled(self, x, label):
        f = pyro.module("f", self.net)
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Delta(f(torch.stack([z, label.to(z.dtype)], 1)), event_dim=1), obs=x)


# ---- what a program is read as


@pytest.mark.parametrize("word", ["program", "event"])
def test_an_observed_delta_makes_a_program_implicit(word):
    target = engine.prepare(getattr(Net(), word), {"x": points()}, "float32")
    assert isinstance(target, Implicit)
    assert [(v.name, v.shape, v.kind) for v in target.visible] == [("x", (2,), "reals")]
    assert [v.name for v in target.hidden] == ["z"]


def test_what_needs_a_density_is_refused_with_what_works():
    for inference in ("mle", "nuts", "svi", "map"):
        with pytest.raises(Incompatible, match="needs a density, and the program has none: 'x' is Delta"):
            pg.fit(Net().program, {"x": points()}, inference)


def test_given_noise_is_what_points_are_made_of():
    own = Net()
    target = engine.prepare(own.labelled, {"x": points(6), "label": np.arange(6)}, "float32")
    noise = torch.linspace(-1, 1, 6)
    with target.running(target.initial(0), 0), torch.no_grad():
        rows = target.batch(torch.arange(6))
        found = target.simulated(rows, {"z": noise})
        expected = own.net(torch.stack([noise, torch.arange(6.0)], 1))
        np.testing.assert_allclose(found["x"], expected, rtol=1e-6)
        np.testing.assert_array_equal(found["label"], np.arange(6))
        with pytest.raises(ValueError, match="'z' is given a value of shape"):
            target.simulated(rows, {"z": noise[:3]})


def test_draws_move_with_parameters_as_finite_differences_do():
    target = engine.prepare(Net().program, {"x": points()}, "float64")
    begun = target.initial(0)
    name = sorted(begun)[1]

    def drawn(parameters):
        with target.running(parameters, 3), torch.enable_grad():
            return target.simulated(target.batch(torch.arange(5)))["x"].sum()

    leaves = {k: v.requires_grad_() for k, v in begun.items()}
    (slope,) = torch.autograd.grad(drawn(leaves), leaves[name])
    step = torch.zeros_like(begun[name])
    step[0, 0] = 1e-5
    ends = [drawn({**begun, name: begun[name].detach() + sign * step}).item() for sign in (1, -1)]
    assert slope[0, 0].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def a_class_that_moves(x):
    logits = pyro.param("logits", lambda: torch.zeros(2))
    with pyro.plate("row", len(x)):
        k = pyro.sample("k", dist.Categorical(logits=logits))
        pyro.sample("x", dist.Delta(k[:, None].expand(len(x), 2).to(x.dtype), event_dim=1), obs=x)


def without_noise(x):
    loc = pyro.param("loc", lambda: torch.zeros(2))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Delta(loc.expand(len(x), 2), event_dim=1), obs=x)


def reads_its_rows(x):
    w = pyro.param("w", lambda: torch.ones(()))
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Delta(w * x.flip(1) + z, event_dim=1), obs=x)


def moves_nothing(x):
    pyro.param("w", lambda: torch.ones(()))
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Delta(z, event_dim=1), obs=x)


def an_energy(x):
    w = pyro.param("w", lambda: torch.ones(()))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1), obs=x)
        pyro.factor("energy", w * x.sum(1))


def a_count_that_moves(x):
    rate = pyro.param("rate", lambda: torch.ones(()), constraint=dist.constraints.positive)
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Poisson(rate.expand(len(x), 2)).to_event(1), obs=x)


def a_mask(x):
    loc = pyro.param("loc", lambda: torch.zeros(2))
    with pyro.plate("row", len(x)), pyro.poutine.mask(mask=x[:, 0] > 0):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def not_registered(x):
    net = nn.Linear(2, 2)
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
    pyro.sample("x", dist.Delta(net(z), event_dim=1), obs=x)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (a_class_that_moves, r"'k' \(Categorical\) is drawn in a way that parameters move and that has no gradient"),
        (a_count_that_moves, r"'x' \(Poisson\) is drawn in a way that parameters move"),
        (without_noise, "'x' comes without any noise: all draws are the same"),
        (reads_its_rows, "depend on the very data that they are of"),
        (moves_nothing, "No parameter moves 'x'"),
        (an_energy, "'energy' is part of an energy"),
        (a_mask, "'x' has a mask or a scale"),
    ],
)
def test_draws_that_would_lack_a_gradient_are_refused(program, said):
    x = np.abs(np.rint(points()))
    with pytest.raises(Incompatible, match=said):
        pg.fit(program, {"x": x}, "gan", num_steps=2)


def test_rows_of_another_shape_and_no_parameters_are_said():
    with pytest.raises(ValueError, match=r"x has rows of shape \(3,\); the program draws 'x' of shape \(2,\)"):
        pg.fit(Net().program, {"x": points(dim=3)}, "gan")
    with pytest.raises(ValueError, match=r"'x' is observed at Delta.*it is none of rows"):
        pg.fit(Net().shared, {"x": points()}, "gan")
    with pytest.raises(ValueError, match="no parameters to be learned"):
        pg.fit(not_registered, {"x": points()}, "gan")
    mixing = Net()
    mixing.net = nn.Sequential(made(2, 8), nn.BatchNorm1d(8), made(8, 2))
    with pytest.raises(ValueError, match="With BatchNorm1d a row's draw depends on the rows beside it"):
        pg.fit(mixing.program, {"x": points()}, "gan")


# ---- critics


def test_critics_that_do_not_serve_are_said():
    flat, inner, wide = made(2, 1), nn.Sequential(made(2, 4), nn.BatchNorm1d(4), made(4, 1)), made(5, 1)
    for critic, said in (
        (lambda x: pyro.module("c", flat)(x), r"logits of shape \(3, 1\) for 3 rows.*\n.*squeeze"),
        (lambda x: pyro.module("c", flat)(torch.zeros_like(x))[:, 0], "does not look at the rows"),
        (lambda x: pyro.module("c", inner)(x)[:, 0], "BatchNorm1d what the critic says of a row depends"),
        (lambda x: pyro.module("c", flat)(0 * x)[:, 0], "zero everywhere: it ignores them"),
        (lambda x: x.sum(1), "The critic has no parameters"),
        (lambda x: pyro.module("c", wide)(x)[:, 0], "The critic does not run on rows: mat1"),
    ):
        with pytest.raises(ValueError, match=said):
            pg.fit(pg.Model(Net().program, critic=critic), {"x": points()}, "gan", num_steps=2)
    for settings, said in (
        ({"pack": 3, "batch_size": 100}, "pack is 3, which does not divide a batch of 100 rows"),
        ({"augment": "cutout"}, "is for pictures"),
        ({"batch_size": 190}, "batch_size is 190; 180 of 200 rows are learned from"),
    ):
        with pytest.raises(ValueError, match=said):
            pg.fit(Net().program, {"x": points()}, "gan", **settings)


def test_the_critic_sees_inputs_and_features_are_left():
    seen = []
    net = made(3, 1)

    def critic(x, label):
        seen.append(tuple(label.shape))
        pyro.module("c", net)
        h = torch.cat([x, label[:, None].to(x.dtype)], 1)
        return net(h)[:, 0], h

    data = {"x": points(), "label": np.arange(200) % 3}
    fit = pg.fit(pg.Model(Net().labelled, critic=critic), data, "gan", num_steps=3, batch_size=50)
    assert {"c$$$weight (critic)", "f$$$0.weight"} <= set(fit.answer)
    assert (50,) in seen
    drawn = fit.condition(label=2).sample(5)["x"]
    assert drawn.shape == (5, 2)


# ---- the same losses as NumPyro's


@pytest.fixture(scope="module")
def twins():
    """The targets of `gan` and `gan_pyro` with their default critics, the same parameters for both, rows and noise."""
    settings = {"num_latents": 3, "width": 16, "depth": 2}
    x = points(64).astype(np.float64)
    ours = conditioned("gan", {"x": x, "num_dims": 2, **settings})[1].judged_by(None, 1)
    theirs = conditioned("gan_pyro", {"x": x, **settings})[1].judged_by(None, 1)
    tensors, critic = theirs.initial(0), theirs.critic_initial(1)
    with runtime.jax_scope("float64"):
        chosen = dict(_paired(ours.initial(jax.random.key(0)), tensors))
        opposed = dict(_paired(ours.critic_initial(jax.random.key(0)), critic))
    noise = np.random.default_rng(3).normal(size=(64, 3))
    return ours, theirs, (chosen, tensors), (opposed, critic), noise


def _paired(labels, tensors):
    """NumPyro's labels, weight before bias, with the values of Pyro's, layer by layer."""
    names = sorted(labels, key=lambda n: int(n.rpartition("[")[2][:-1]))
    for name, (_, value) in zip(names, tensors.items(), strict=True):
        assert labels[name].shape == tuple(value.shape)
        yield name, jnp.asarray(value.numpy())


LEARNERS = {
    "minimax": ("gan", {"loss": "minimax"}),
    "least squares": ("gan", {"loss": "least_squares", "r1": 0.7}),
    "hinge": ("gan", {"loss": "hinge", "r1": 0.3, "spectral_norm": True}),
    "gan": ("gan", {"r1": 0.5}),
    "wgan": ("wgan", {}),
    "wgan_gp": ("wgan_gp", {"penalty": 2.0}),
    "r3gan": ("r3gan", {"gamma": 0.8}),
}


@pytest.mark.parametrize("word", LEARNERS)
def test_losses_and_slopes_are_those_of_numpyro(word, twins):
    ours, theirs, (chosen, tensors), (opposed, critic), noise = twins
    name, settings = LEARNERS[word]
    inference = catalog.inference(name, settings)
    kernel, vectors = inference.on("pyro"), {}
    if inference.spectral_norm:
        vectors = _weights.first_vectors(torch.Generator().manual_seed(0), critic)
    with runtime.jax_scope("float64"):
        there = {k: jnp.asarray(u.numpy()) for (k, _), u in zip(_weighted(opposed), vectors.values(), strict=False)}
        rows, key = ours.rows(np.arange(64)), jax.random.key(7)
        draw = jax.vmap(lambda p, row, z: ours.simulated(key, p, row, {"z": z}), (None, 0, 0))
        play = lambda c: inference._play(key, ours, c, there)  # noqa: E731
        first = jax.jit(jax.value_and_grad(lambda c: inference.critic_loss(play(c), rows, draw(chosen, rows, noise))))
        second = jax.jit(jax.value_and_grad(lambda p: inference.model_loss(play(opposed), rows, draw(p, rows, noise))))
        expected = [first(opposed), second(chosen)]
        shares = np.array(jax.random.uniform(jax.random.split(key)[1], (64,)))
    begun = kernel.play
    kernel.play = lambda *given: _with_shares(begun(*given), shares)
    z = torch.from_numpy(noise)
    for (value, slopes), leaves, learner in zip(expected, (critic, tensors), ("critic", "model"), strict=True):
        loss, found = _in_torch(kernel, theirs, tensors, critic, vectors, z, learner)
        assert loss == pytest.approx(float(value), rel=1e-9, abs=1e-12)
        assert len(found) == len(leaves)
        for (label, slope), x in zip(_paired(slopes, dict(zip(leaves, found, strict=True))), found, strict=True):
            np.testing.assert_allclose(x, slopes[label], rtol=1e-6, atol=1e-10)
            assert slope.shape == tuple(x.shape)


def _weighted(arrays):
    """In the order of Pyro's labels, which is that of the layers."""
    return [
        (k, v) for k, v in sorted(arrays.items(), key=lambda pair: int(pair[0].rpartition("[")[2][:-1])) if v.ndim > 1
    ]


def _with_shares(play, shares):
    play.shares = lambda count: torch.from_numpy(shares)
    return play


def _in_torch(kernel, target, tensors, critic, vectors, noise, learner):
    """A loss, and its slopes in the critic's or in the program's parameters."""
    leaves = {k: v.clone().requires_grad_() for k, v in (critic if learner == "critic" else tensors).items()}
    with scoped("float64"), torch.enable_grad():
        rows = target.batch(torch.arange(64))
        with target.holding(tensors if learner == "critic" else leaves):
            fake = target.simulated(rows, {"z": noise})
        loss = getattr(kernel.settings, f"{learner}_loss")
        key = engine.OPS.key(0)
        value = kernel._played(key, target, leaves if learner == "critic" else critic, vectors, loss, rows, fake)
        slopes = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return value.item(), [s.detach() for s in slopes]


def test_packs_are_laid_out_as_numpyro_lays_them():
    from probgen.engine.numpyro.targets.critics import packed as ours
    from probgen.engine.pyro.games.critics import packed as theirs

    rng = np.random.default_rng(0)
    rows = {"a": rng.random(6), "b": rng.random((6, 2)), "c": rng.random((6, 3, 4)), "d": rng.random((6, 3, 4, 2))}
    expected = ours({k: jnp.asarray(v) for k, v in rows.items()}, 2)
    found = theirs({k: torch.from_numpy(v) for k, v in rows.items()}, 2)
    for k in rows:
        np.testing.assert_allclose(found[k], expected[k], rtol=1e-6)


def test_spectral_norm_comes_to_the_largest_singular_value():
    generator = torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(5, 7, generator=generator), "b": torch.randn(4, 3, 2, 2, generator=generator)}
    parameters = {**weights, "bias": torch.ones(3)}
    vectors = _weights.first_vectors(generator, parameters)
    for _ in range(300):
        vectors = _weights.iterated(parameters, vectors)
    found = _weights.divided(parameters, vectors)
    for k, w in weights.items():
        largest = torch.linalg.svdvals(w.reshape(len(w), -1))[0]
        np.testing.assert_allclose(found[k], w / largest, rtol=1e-4)
    assert found["bias"] is parameters["bias"]


def test_penalty_on_orthogonality_is_numpyros():
    from probgen.inference.adversarial import _weights as ours

    w = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    leaf = torch.from_numpy(w).requires_grad_()
    value = _weights.off_diagonal({"w": leaf, "b": torch.ones(3)})
    expected = jax.value_and_grad(ours.off_diagonal)({"w": jnp.asarray(w), "b": jnp.ones(3)})
    assert value.item() == pytest.approx(float(expected[0]), rel=1e-5)
    np.testing.assert_allclose(torch.autograd.grad(value, leaf)[0], expected[1]["w"], rtol=1e-4, atol=1e-4)


def test_pictures_change_alike_by_one_seed():
    x = torch.rand(7, 8, 8, generator=torch.Generator().manual_seed(0))
    both = [_augment.changed(3, {"x": v}, ("x",), "both")["x"] for v in (x, 2 * x)]
    np.testing.assert_allclose(both[1], 2 * both[0])
    centre = torch.full((7,), 1)
    np.testing.assert_array_equal(_augment.translated(x, centre, centre), x)
    moved = _augment.translated(x, centre + 1, centre - 1)
    np.testing.assert_array_equal(moved[:, :-1, 1:], x[:, 1:, :-1])
    assert not moved[:, -1].any()
    hole = _augment.cut(torch.ones(7, 8, 8), torch.full((7,), 4), torch.full((7,), 4))
    np.testing.assert_array_equal(hole[0] == 0, np.pad(np.ones((5, 5), bool), ((2, 1), (2, 1))))


# ---- steps of the game


def line(x):
    theta = pyro.param("theta", lambda: torch.full((), 1e-3))
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Delta((theta + 0 * z)[:, None], event_dim=1), obs=x)


def slope(x):
    return pyro.param("psi", lambda: torch.full((), 1e-3)) * x[:, 0]


@pytest.mark.parametrize("simultaneous", [True, False])
def test_a_game_of_two_points_turns_at_its_exact_rate(simultaneous):
    """Dirac-GAN near its rest: simultaneous steps of size h grow by sqrt(1 + h^2 / 4), alternating ones keep to an ellipse."""
    settings = {"optimizer": "sgd", "decay": "constant", "learning_rate": 0.2, "ema": 0.0, "held_out": 0.0}
    executor = played(
        line, {"x": np.zeros((20, 1))}, "gan", slope, simultaneous=simultaneous, num_steps=400, **settings
    )
    found = []
    for i in range(60):
        executor.advance(i, 1)
        found.append([float(executor.read(f"{who}.parameters")[0][0]) for who in ()])
        state = executor._states[0]
        found[-1] = [state.model.parameters["theta"].item(), state.critic.parameters["psi"].item()]
    theta, psi = np.array(found).T
    if simultaneous:
        rates = np.hypot(theta, psi)[1:] / np.hypot(theta, psi)[:-1]
        np.testing.assert_allclose(rates, np.sqrt(1 + 0.01), rtol=1e-4)
    else:
        kept = theta**2 + psi**2 - 0.1 * theta * psi  # what the map of alternating steps keeps
        np.testing.assert_allclose(kept, kept[0], rtol=2e-3)


def played(program, data, name, critic=None, **settings):
    """An executor at the start of a game."""
    target = engine.guided(engine.prepare(program, data, "float32"), None, critic)
    inference = catalog.inference(name, settings)
    executor = engine.Executor(inference, inference.prepare(target), 0, 1)
    executor.init()
    return executor


def test_the_average_and_adam_are_their_closed_forms():
    executor = played(Net().program, {"x": points()}, "r3gan", num_steps=20, batch_size=50, ema=0.8, learning_rate=0.01)
    name, means, path = "f$$$0.weight", None, []
    before = executor._states[0].model.parameters[name].clone()
    for i in range(12):
        executor.advance(i, 1)
        path.append(executor._states[0].model.parameters[name].clone())
        weight = max(0.2, 1 / (i + 1))
        means = path[-1] if means is None else means + weight * (path[-1] - means)
    np.testing.assert_allclose(executor._states[0].average[name], means, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose((path[0] - before).abs(), 0.01, rtol=1e-3)  # the first step of Adam is the sign


def test_equalised_weights_begin_at_their_scale_or_where_init_says():
    target = engine.guided(engine.prepare(Net().program, {"x": points()}, "float32"), None, None)
    started = target.begun({"f$$$2.weight": np.full((2, 8), 0.25)})
    inference = catalog.inference("gan", {"equalised": True})
    executor = engine.Executor(inference, inference.prepare(started), 0, 1)
    executor.init()
    state = executor._states[0]
    assert (state.model.parameters["f$$$2.weight"] == 0.25).all()
    wide = state.critic.parameters["critic.2.weight"]
    assert wide.std().item() == pytest.approx(np.sqrt(2 / 128), rel=0.05)


def test_the_critic_begins_where_that_of_a_fit_ended():
    fit = lambda **more: pg.fit(Net().program, {"x": points()}, "gan", num_steps=2, progress=False, **more)  # noqa: E731
    before = fit(learning_rate=0.1)
    after = fit(init=before, learning_rate=1e-12)
    critics = [k for k in before.answer if k.endswith("(critic)")]
    assert critics
    for k in critics:
        np.testing.assert_allclose(after.answer[k], before.answer[k], atol=1e-6)
    assert not any("began anew" in note for note in after.notes)
    assert "the critic began anew" in "".join(fit(init=before, pack=2).notes)


def test_what_was_not_looked_at_yet_is_not_told_as_zero():
    fit = pg.fit(Net().program, {"x": points()}, "gan", num_steps=120, batch_size=16, progress=False)
    told = fit.tree["optimisation"]["distance"].values
    assert np.isnan(told[..., :99]).all()
    assert np.isfinite(told[..., 99:]).all()


def test_clipped_weights_stay_within_their_bounds_and_vectors_are_state():
    executor = played(
        Net().program, {"x": points()}, "wgan", num_steps=9, batch_size=60, clip=0.02, spectral_norm=True, pack=2
    )
    executor.advance(0, 4)
    state = executor._states[0]
    assert state.critic.turn == 20
    assert max(v.abs().max() for v in state.critic.parameters.values()) <= 0.02
    assert set(state.vectors) == {k for k, v in state.critic.parameters.items() if v.dim() > 1}
    answer = executor.answer()
    assert {k for k in answer if k.endswith("(critic)")} == {f"{k} (critic)" for k in state.critic.parameters}


def test_a_run_goes_on_from_its_state_bit_for_bit(tmp_path, killed):
    settings = {
        "num_steps": 150, "batch_size": 50, "spectral_norm": True, "critic_steps": 2, "pack": 2, "orthogonal": 1e-3,
        "equalised": True,
    }  # fmt: skip
    whole = pg.fit(Net().program, {"x": points()}, "wgan_gp", out=tmp_path / "whole", **settings)
    killed(pg.fit, Net().program, {"x": points()}, "wgan_gp", out=tmp_path / "part", **settings)
    for fit in (
        pg.resume(tmp_path / "part", program=Net().program),
        pg.load(tmp_path / "whole", program=Net().program),
    ):
        assert set(fit.answer) == set(whole.answer)
        for name in whole.answer:
            np.testing.assert_array_equal(fit.answer[name], whole.answer[name])
        np.testing.assert_array_equal(fit.records["distance"], whole.records["distance"])
    assert np.isfinite(whole.records["slope"][0, -1])
    assert whole.records["right"][0, -1] > 0


def test_pictures_play_in_packs_with_changes():
    def pictures(x):
        f = pyro.module("f", net)
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Delta(f(z).reshape(-1, 8, 8)).to_event(2), obs=x)

    net, x = made(2, 64), np.random.default_rng(0).random((60, 8, 8))
    fit = pg.fit(pictures, {"x": x}, "r3gan", num_steps=2, batch_size=20, pack=2, augment="both", spectral_norm=True)
    assert fit.answer["critic pictures.0.weight (critic)"].shape == (32, 2, 4, 4)
    assert np.isfinite(fit.records["critic_loss"]).all()
    assert fit.sample(3)["x"].shape == (3, 8, 8)
    assert fit.judge(x[:6]).shape == (3,)


def test_a_shift_is_learned():
    def shifted(x):
        loc = pyro.param("loc", lambda: torch.zeros(2))
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 0.5).to_event(1))
            pyro.sample("x", dist.Delta(loc + z, event_dim=1), obs=x)

    fit = pg.fit(shifted, {"x": points(1000)}, "r3gan", num_steps=400, batch_size=100, learning_rate=0.01, ema=0.9)
    np.testing.assert_allclose(fit.parameters["loc"], points(1000).mean(0), atol=0.1)
    assert fit.records["distance"][0, -1] < 0.2 < fit.records["distance"][0, 99] + 0.2
    drawn = fit.sample(4000)["x"]
    np.testing.assert_allclose(drawn.mean(0), fit.parameters["loc"], atol=0.05)
    with pytest.raises(Incompatible, match="has no density"):
        fit.condition(x=np.zeros(2))
    assert fit.diagnose().findings


def generator(x, label):
    W = pyro.param("W", lambda: torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    shifts = pyro.param("shifts", lambda: 10 * torch.arange(3.0)[:, None].repeat(1, 2))
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        kind = pyro.sample("kind", dist.Categorical(torch.ones(4) / 4))
        u = pyro.sample("u", dist.Uniform(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Delta(z @ W + (kind + u)[:, None] + shifts[label]).to_event(1), obs=x)


def linear_critic(x, label):
    return x @ pyro.param("slope", lambda: torch.ones(2)) + pyro.param("of_label", lambda: torch.zeros(3))[label]


def test_a_fit_draws_decodes_and_judges(tmp_path):
    labels = np.arange(200) % 3
    model, data = pg.Model(generator, critic=linear_critic), {"x": points() + labels[:, None], "label": labels}
    fit = pg.fit(model, data, "gan", num_steps=3, batch_size=20)
    p = fit.parameters

    def by_hand(found, label):
        return found["z"] @ p["W"] + (found["kind"] + found["u"])[:, None] + p["shifts"][label]

    drawn, each = fit.sample(40, label=2), fit.simulate(50)
    np.testing.assert_allclose(drawn["x"], by_hand(drawn, 2), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(each["x"], by_hand(each, each["label"]), rtol=1e-4, atol=1e-4)
    noise = {k: drawn[k] for k in ("z", "kind", "u")}
    np.testing.assert_array_equal(fit.decode(**noise, label=2)["x"], drawn["x"])
    assert abs(fit.sample(500, truncation=0.5, label=0)["z"]).max() <= 0.5
    assert fit.interpolate({"z": np.array([2.0, 0.0])}, {"z": np.array([0.0, 2.0])}, 5, label=1)["x"].shape == (5, 2)
    with pytest.raises(ValueError, match=r"u of row 1 is 1[.]5, outside the support"):
        fit.decode(u=np.array([0.5, 1.5]), label=0)
    fit.report(tmp_path / "report.html")
    assert "ImplicitFit" in repr(fit)
    said = data["x"] @ p["slope (critic)"] + p["of_label (critic)"][labels]
    np.testing.assert_allclose(fit.judge(), said, rtol=1e-4, atol=1e-5)


# ---- programs with a density learn from their draws as well


def test_a_flow_and_an_autoencoder_learn_against_a_critic():
    target = conditioned("vae_pyro", {"x": (points(100, 9) > 1).astype(float), "num_latents": 2, "width": 8})[1]
    assert isinstance(target, Generative)
    fit = pg.fit(
        "vae_pyro", {"x": (points(100, 9) > 1).astype(float), "num_latents": 2, "width": 8}, "gan", num_steps=3
    )
    assert any("its mean stands for its draw" in note for note in fit.target.notes)
    assert set(np.unique(fit.sample(50)["x"])) == {0, 1}

    def flow(x):
        scale = pyro.param("scale", lambda: torch.ones(2), constraint=dist.constraints.positive)
        base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        moved = dist.TransformedDistribution(
            base, [dist.transforms.AffineTransform(torch.zeros(2), scale, event_dim=1)]
        )
        with pyro.plate("row", len(x)):
            pyro.sample("x", moved, obs=x)

    x = 3 * np.random.default_rng(0).normal(size=(500, 2))
    fit = pg.fit(flow, {"x": x}, "r3gan", num_steps=300, batch_size=100, learning_rate=0.02)
    np.testing.assert_allclose(fit.parameters["scale"], 3, rtol=0.2)
    assert fit.log_prob(np.zeros((1, 2))).value[0] == pytest.approx(
        -np.log(2 * np.pi) - np.log(fit.parameters["scale"]).sum(), rel=1e-4
    )
