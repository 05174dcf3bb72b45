"""What a program reads belongs to what is kept of it: a change of it is seen by the next fit, and never by the last one.

A slope b with y = 2 x: where the program reads scale * x, b is 2 / scale.
"""

import contextlib
import dataclasses
import functools
import os
import sys
import types

import numpy as np
import pytest
from conftest import ENGINES, needs_pyro

import probgen as pg
from probgen import runtime
from probgen.programs.pinned import Changed, pinned
from probgen.programs.reads import reads_of
from probgen.run import conditioned

X = np.linspace(-1, 1, 20)
Y = 2 * X
SMALL = {"num_samples": 60, "num_warmup": 120, "num_chains": 1, "progress": False}


def line(engine, x, y):
    """The program's body, for both engines."""
    if engine == "numpyro":
        import numpyro as library
        import numpyro.distributions as dist
    else:
        import pyro as library
        import pyro.distributions as dist
        import torch

        x = torch.as_tensor(x)
    b = library.sample("b", dist.Normal(0.0, 10.0))
    library.deterministic("first", b * x[0])
    library.sample("y", dist.Normal(b * x, 0.05).to_event(1), obs=y)


SCALE = 1.0


def helper(x):
    return SCALE * x


def array_rebound(engine):
    space = {"line": line, "A": X.copy(), "__name__": "__main__"}
    exec(f"def program(y=None): line({engine!r}, A, y)", space)
    return space["program"], lambda: space.update(A=-X)


def array_in_place(engine):
    space = {"line": line, "A": X.copy(), "__name__": "__main__"}
    exec(f"def program(y=None): line({engine!r}, A, y)", space)
    return space["program"], lambda: np.negative(space["A"], out=space["A"])


def dictionary(engine):
    settings = {"scale": [1.0]}

    def program(y=None):
        line(engine, settings["scale"][0] * X, y)

    return program, lambda: settings.update(scale=[-1.0])


def attribute(engine):
    @dataclasses.dataclass
    class Settings:
        scale: float = 1.0

    settings = Settings()

    def program(y=None):
        line(engine, settings.scale * X, y)

    return program, lambda: setattr(settings, "scale", -1.0)


def attribute_of_a_class(engine):
    class Settings:
        scale = 1.0

    def program(y=None):
        line(engine, Settings.scale * X, y)

    return program, lambda: setattr(Settings, "scale", -1.0)


def module(engine):
    sys.modules["users_settings"] = settings = types.ModuleType("users_settings")
    settings.scale = 1.0

    def program(y=None):
        import users_settings

        line(engine, users_settings.scale * X, y)

    return program, lambda: setattr(settings, "scale", -1.0)


def closure(engine):
    scale = 1.0

    def program(y=None):
        line(engine, scale * X, y)

    def change():
        nonlocal scale
        scale = -1.0

    return program, change


def default(engine):
    def program(y=None, scale=1.0):
        line(engine, scale * X, y)

    return program, lambda: setattr(program, "__defaults__", (None, -1.0))


def bound(engine):
    class Experiment:
        def __init__(self):
            self.scale = {"x": 1.0}

        def program(self, y=None):
            line(engine, self.scale["x"] * X, y)

    experiment = Experiment()
    return experiment.program, lambda: experiment.scale.update(x=-1.0)


def callable_object(engine):
    class Program:
        def __init__(self):
            self.scale = 1.0

        def __call__(self, y=None):
            line(engine, self.scale * X, y)

    program = Program()
    return program, lambda: setattr(program, "scale", -1.0)


def partial(engine):
    array = X.copy()

    def program(x, y=None):
        line(engine, x, y)

    return functools.partial(program, array), lambda: np.negative(array, out=array)


def helper_redefined(engine):
    space = {"line": line, "X": X, "__name__": "__main__"}
    exec(f"def helper(x): return x\ndef program(y=None): line({engine!r}, helper(X), y)", space)
    return space["program"], lambda: exec("def helper(x): return -x", space)


def global_of_a_helper(engine):
    def change():
        global SCALE
        SCALE = -1.0

    def program(y=None):
        line(engine, helper(X), y)

    global SCALE
    SCALE = 1.0
    return program, change


def function_in_a_table(engine):
    table = {"link": lambda x: x}

    def program(y=None):
        line(engine, table["link"](X), y)

    return program, lambda: table.update(link=lambda x: -x)


def table_of_pandas(engine):
    import pandas as pd

    table = pd.DataFrame({"x": X})

    def program(y=None):
        line(engine, np.array(table["x"]), y)

    return program, lambda: table.insert(0, "x", -table.pop("x"))


def network(engine):
    if engine == "numpyro":
        import equinox as eqx
        import jax

        space = {"line": line, "X": X, "jax": jax, "__name__": "__main__"}
        net = eqx.nn.Linear(1, 1, use_bias=False, key=jax.random.key(0))
        put = lambda w: space.update(net=eqx.tree_at(lambda n: n.weight, net, jax.numpy.full((1, 1), w)))  # noqa: E731
        put(1.0)
        exec("def program(y=None): line('numpyro', jax.vmap(net)(X[:, None])[:, 0], y)", space)
        return space["program"], lambda: put(-1.0)
    import torch

    net = torch.nn.utils.skip_init(torch.nn.Linear, 1, 1, bias=False).double()  # which draws nothing
    net.weight.data.fill_(1.0)

    def program(y=None):
        line("pyro", net(torch.as_tensor(X)[:, None])[:, 0].detach(), y)

    return program, lambda: net.weight.data.fill_(-1.0)


def environment(engine):
    os.environ["PROBGEN_TEST_SCALE"] = "1"

    def program(y=None):
        line(engine, float(os.environ["PROBGEN_TEST_SCALE"]) * X, y)

    return program, lambda: os.environ.update(PROBGEN_TEST_SCALE="-1")


FORMS = [
    array_rebound, array_in_place, dictionary, attribute, attribute_of_a_class, module, closure, default, bound,
    callable_object, partial, helper_redefined, global_of_a_helper, function_in_a_table, table_of_pandas, network,
    environment,
]  # fmt: skip


def fitted(engine, program):
    return pg.fit(program, {"y": Y}, engine=engine, **SMALL)


def lines(program, engine):
    """The target of a program now, and its log densities at b = 2 and b = -2."""
    _, target = conditioned(program, {"y": Y}, engine)
    return target, densities(target)


def densities(target):
    if target.engine == "numpyro":
        with runtime.jax_scope("float64"):
            return [float(target.log_density(np.array([b]))) for b in (2.0, -2.0)]
    import torch

    return [float(target.torch_log_density(torch.tensor([b], dtype=torch.float64))) for b in (2.0, -2.0)]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_gives_another_target(engine, form):
    program, change = form(engine)
    first, (right, wrong) = lines(program, engine)
    assert right > wrong
    change()
    second, (wrong, right) = lines(program, engine)
    assert right > wrong
    assert first.structure is not second.structure
    again, _ = lines(program, engine)
    assert (again.structure is second.structure) == (form is not environment)  # which cannot be told to be the same
    posterior = {"b": np.full((1, 50), 2.0)}
    with contextlib.suppress(Changed):  # what cannot be held is refused; what has no content, by a fit
        drawn = first.predict(posterior, {"y": None}, 0)["y"].mean((0, 1))
        assert drawn == pytest.approx(Y, abs=0.1) or form is environment


FEW = [array_rebound, attribute_of_a_class, bound, network, environment]
FITS = [("numpyro", form) for form in FORMS] + [pytest.param("pyro", form, marks=needs_pyro) for form in FEW]


@pytest.mark.parametrize(("engine", "form"), FITS)
def test_a_change_is_seen_by_the_next_fit_and_by_no_other(engine, form):
    program, change = form(engine)
    first = fitted(engine, program)
    change()
    second = fitted(engine, program)
    assert float(first.posterior["b"].mean()) == pytest.approx(2, abs=0.1)
    assert float(first.posterior["first"].mean()) == pytest.approx(-2, abs=0.1)  # 2 x_0, of the first program
    assert float(second.posterior["b"].mean()) == pytest.approx(-2, abs=0.1)
    with contextlib.suppress(Changed):
        assert first.predict()["y"].values.mean((0, 1)) == pytest.approx(Y, abs=0.1)
    assert second.predict()["y"].values.mean((0, 1)) == pytest.approx(Y, abs=0.1)


@pytest.mark.parametrize("form", [array_rebound, closure, attribute, bound], ids=lambda f: f.__name__)
def test_there_and_back_again(form):
    """Three fits alive at once, the last with the first one's content."""
    engine = "numpyro"
    program, change = form(engine)
    fits = [fitted(engine, program)]
    change()
    fits.append(fitted(engine, program))
    program, _ = form(engine)
    fits.append(fitted(engine, program))
    means = [float(fit.posterior["b"].mean()) for fit in fits]
    assert means == pytest.approx([2, -2, 2], abs=0.1)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_cannot_be_held_is_refused_by_its_name(engine):
    program, change = attribute_of_a_class(engine)
    target, _ = lines(program, engine)
    change()
    with pytest.raises(Changed, match=r"program reads Settings, which changed after it was fitted"):
        target.predict({"b": np.full((1, 5), 2.0)}, {"y": None}, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_content_is_one_program(engine):
    """A cell of a notebook that is run again: the same text and reads, another function."""
    one, other = (pinned(array_rebound(engine)[0]) for _ in range(2))
    assert one is other


def counted():
    COUNT.append(1)
    BUFFER[0] += 1
    return len(BUFFER)


COUNT, BUFFER = [], np.zeros(3)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_program_changes_itself_is_its_own(engine):
    """A counter or a buffer that runs write to: fits, predicts, and is no change from outside."""

    def program(y=None):
        line(engine, X * (counted() / 3), y)

    fit = fitted(engine, program)
    assert fit.predict()["y"].values.mean((0, 1)) == pytest.approx(Y, abs=0.1)
    assert fitted(engine, program).posterior["b"].values.mean() == pytest.approx(2, abs=0.1)


def test_reading_costs_little():
    import time

    def program(x, y=None):
        import numpyro

        numpyro.sample("b", numpyro.distributions.Normal(helper(X).sum(), 1.0))

    reads_of(program)
    start = time.perf_counter()
    for _ in range(50):
        pinned(program)
    assert (time.perf_counter() - start) / 50 < 0.005


@pytest.mark.parametrize("engine", ENGINES)
def test_data_changed_in_place_change_no_fit(engine):
    counts = np.arange(20)

    def program(n, y=None):
        line(engine, n / 10.0 - 1.0, y)

    y = 2 * (counts / 10 - 1)
    fit = pg.fit(program, {"n": counts, "y": y}, engine=engine, **SMALL)
    counts[:], y[:] = 0, 0.0
    assert fit.predict()["y"].values.mean((0, 1)) == pytest.approx(2 * (np.arange(20) / 10 - 1), abs=0.1)
    assert np.array_equal(fit.tree["constant_data"]["n"].values, np.arange(20))


@pytest.mark.parametrize("engine", ENGINES)
def test_settings_of_other_types_are_other_settings(engine):
    """1 and True, 0.0 and -0.0 are equal and hash alike."""

    def program(n, y=None):
        line(engine, (1.0 if isinstance(n, bool) else -1.0) * X, y)

    fits = [pg.fit(program, {"n": n, "y": Y}, engine=engine, **SMALL) for n in (1, True)]
    means = [fit.posterior["b"].values.mean() for fit in fits]
    assert means == pytest.approx([-2, 2], abs=0.1)


@pytest.mark.parametrize("engine", ENGINES)
def test_learners_see_changes_too(engine):
    space = {"SHIFT": 0.0, "__name__": "__main__"}
    if engine == "numpyro":
        text = (
            "import numpyro as E, numpyro.distributions as dist\ndef program(x=None):\n"
            "    E.sample('x', dist.Normal(E.param('loc', 0.0) + SHIFT, 1.0), obs=x)"
        )
    else:
        text = (
            "import pyro as E, pyro.distributions as dist, torch\ndef program(x):\n"
            "    with E.plate('row', len(x)):\n"
            "        E.sample('x', dist.Normal(E.param('loc', torch.tensor(0.0)) + SHIFT, 1.0), obs=x)"
        )
    exec(text, space)
    x, found, fits = 5 + X, [], []
    for space["SHIFT"] in (0.0, 3.0):
        fits.append(pg.fit(space["program"], {"x": x}, "mle", num_steps=1500, learning_rate=0.05, progress=False))
        found.append(float(fits[-1].parameters["loc"]))
    assert found == pytest.approx([5, 2], abs=0.1)
    drawn = [fit.sample(2000)["x"].mean() for fit in fits]
    assert drawn == pytest.approx([5, 5], abs=0.2)
