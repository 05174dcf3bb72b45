"""Predictions on new data take the sizes of what is new, on both engines, or say what else to pass."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import ENGINES

import probgen as pg
from probgen.fits.fit import Fit
from probgen.run import conditioned

RNG = np.random.default_rng(0)
X = np.linspace(-1, 1, 40)
Y = 2 * X + 0.5 + 0.1 * RNG.normal(size=40)
G = np.repeat(np.arange(8), 5)
GROUPS = np.linspace(-2, 2, 8)
TRUTH = {"a": 0.5, "b": 2.0, "theta": GROUPS, "z": Y - 2 * X}


class Np:
    """Programs in NumPyro."""

    @staticmethod
    def plain(x, y=None):
        a, b = (numpyro.sample(k, dist.Normal(0.0, 5.0)) for k in "ab")
        numpyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

    @staticmethod
    def required(x, y):
        a, b = (numpyro.sample(k, dist.Normal(0.0, 5.0)) for k in "ab")
        numpyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

    @staticmethod
    def plate_of_x(x, y=None):
        a, b = (numpyro.sample(k, dist.Normal(0.0, 5.0)) for k in "ab")
        with numpyro.plate("row", len(x)):
            numpyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

    @staticmethod
    def plate_of_y(x, y):
        a, b = (numpyro.sample(k, dist.Normal(0.0, 5.0)) for k in "ab")
        with numpyro.plate("row", len(y)):
            numpyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

    @staticmethod
    def plate_of_n(x, n, y=None):
        a, b = (numpyro.sample(k, dist.Normal(0.0, 5.0)) for k in "ab")
        with numpyro.plate("row", n):
            numpyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

    @staticmethod
    def mean(y=None):
        a = numpyro.sample("a", dist.Normal(0.0, 5.0))
        numpyro.sample("y", dist.Normal(a, 0.1), obs=y)

    @staticmethod
    def groups(x, g, y=None):
        theta = numpyro.sample("theta", dist.Normal(0.0, 5.0).expand([8]).to_event(1))
        b = numpyro.sample("b", dist.Normal(0.0, 5.0))
        numpyro.sample("y", dist.Normal(theta[g] + b * x, 0.1), obs=y)

    @staticmethod
    def shifted(x, y=None):
        a, b = (numpyro.sample(k, dist.Normal(0.0, 5.0)) for k in "ab")
        numpyro.sample("y", dist.Normal(a + b * x, 0.1), obs=None if y is None else y + 1.0)

    @staticmethod
    def local(x, y=None):
        b = numpyro.sample("b", dist.Normal(0.0, 5.0))
        with numpyro.plate("row", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z + b * x, 0.1), obs=y)


def pyro_programs():
    import pyro
    import pyro.distributions as dist

    class Py:
        """The same in Pyro."""

        @staticmethod
        def ab():
            return tuple(pyro.sample(k, dist.Normal(0.0, 5.0)) for k in "ab")

        @staticmethod
        def plain(x, y=None):
            a, b = Py.ab()
            pyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

        @staticmethod
        def required(x, y):
            a, b = Py.ab()
            pyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

        @staticmethod
        def plate_of_x(x, y=None):
            a, b = Py.ab()
            with pyro.plate("row", len(x)):
                pyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

        @staticmethod
        def plate_of_y(x, y):
            a, b = Py.ab()
            with pyro.plate("row", len(y)):
                pyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

        @staticmethod
        def plate_of_n(x, n, y=None):
            a, b = Py.ab()
            with pyro.plate("row", n):
                pyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)

        @staticmethod
        def mean(y=None):
            a = pyro.sample("a", dist.Normal(0.0, 5.0))
            pyro.sample("y", dist.Normal(a, 0.1), obs=y)

        @staticmethod
        def groups(x, g, y=None):
            theta = pyro.sample("theta", dist.Normal(0.0, 5.0).expand([8]).to_event(1))
            b = pyro.sample("b", dist.Normal(0.0, 5.0))
            pyro.sample("y", dist.Normal(theta[g] + b * x, 0.1), obs=y)

        @staticmethod
        def shifted(x, y=None):
            a, b = Py.ab()
            pyro.sample("y", dist.Normal(a + b * x, 0.1), obs=None if y is None else y + 1.0)

        @staticmethod
        def local(x, y=None):
            b = pyro.sample("b", dist.Normal(0.0, 5.0))
            with pyro.plate("row", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal(z + b * x, 0.1), obs=y)

    return Py


DATA = {
    "plain": {"x": X, "y": Y},
    "required": {"x": X, "y": Y},
    "plate_of_x": {"x": X, "y": Y},
    "plate_of_y": {"x": X, "y": Y},
    "plate_of_n": {"x": X, "n": 40, "y": Y},
    "mean": {"y": Y},
    "groups": {"x": X, "g": G, "y": GROUPS[G] + 2 * X + 0.1 * RNG.normal(size=40)},
    "shifted": {"x": X, "y": Y - 1},
    "local": {"x": X, "y": Y},
}
FITS = {}


@pytest.fixture(params=ENGINES)
def fitted(request):
    """Fits by the name of their program, each made once, whose 100 draws are all at the truth."""
    programs = Np if request.param == "numpyro" else pyro_programs()

    def fit(name):
        if (request.param, name) not in FITS:
            model, target = conditioned(getattr(programs, name), DATA[name])
            z = target.unconstrain({k: np.asarray(TRUTH[k]) for k in target.named("latent")})
            records = {"z": np.tile(z, (1, 100, 1))}
            sampler = pg.inference.NUTS(num_warmup=0, num_samples=100, num_chains=1)
            FITS[request.param, name] = Fit(model, target, sampler, 0, "float64", records)
        return FITS[request.param, name]

    return fit


def shape(fit, **new):
    return fit.predict(**new)["y"].shape[2:]


def mean(fit, **new):
    return fit.predict(**new)["y"].values.mean((0, 1))


@pytest.mark.parametrize("name", DATA)
def test_the_fits_own_data_are_predicted_in_their_shape(fitted, name):
    """As many as were observed, also where neither plate nor distribution says so."""
    fit = fitted(name)
    assert shape(fit) == (40,)
    assert fit.sample(3)["y"].shape == (3, 40)


@pytest.mark.parametrize("name", ["plain", "required", "plate_of_x", "shifted"])
@pytest.mark.parametrize("new", [[0.5], [1.0, -1.0], np.linspace(-2, 2, 55)])
def test_new_inputs_are_predicted_one_by_one(fitted, name, new):
    """y = .5 + 2x with noise of sd .1, within five standard errors of the mean of 100 draws."""
    assert shape(fitted(name), x=new) == (len(new),)
    np.testing.assert_allclose(mean(fitted(name), x=new), 0.5 + 2 * np.asarray(new), atol=0.05)


@pytest.mark.parametrize("name", ["plain", "required"])
def test_a_number_and_a_table_are_inputs_too(fitted, name):
    assert shape(fitted(name), x=0.5) == ()
    assert shape(fitted(name), x=np.zeros((3, 4))) == (3, 4)


def test_new_inputs_of_the_same_size(fitted):
    np.testing.assert_allclose(mean(fitted("plain"), x=-X), 0.5 - 2 * X, atol=0.05)
    np.testing.assert_allclose(mean(fitted("plate_of_y"), x=-X), 0.5 - 2 * X, atol=0.05)


@pytest.mark.parametrize("new", [[0.5], [1.0, -1.0]])
def test_what_else_sets_the_size_is_named(fitted, new):
    """A single new x would be spread over 40 rows, and two fit into none."""
    with pytest.raises(
        ValueError, match=r"(?s)x: \(\d,\); y: \(40,\) is still the fit's\).\nPass y of the new size as well; where"
    ):
        fitted("plate_of_y").predict(x=new)
    assert shape(fitted("plate_of_y"), x=new, y=np.zeros(len(new))) == (len(new),)
    with pytest.raises(
        ValueError, match=r"(?s)x: \(\d,\); n: 40, y: \(40,\) are still the fit's\).\nPass n of the new size"
    ):
        fitted("plate_of_n").predict(x=new)
    assert shape(fitted("plate_of_n"), x=new, n=len(new)) == (len(new),)
    with pytest.raises(
        ValueError, match=r"(?s)x: \(\d,\); g: \(40,\), y: \(40,\) are still the fit's\).\nPass g of the new size"
    ):
        fitted("groups").predict(x=new)
    with pytest.raises(ValueError, match=r"(?s)\(g: \(1,\); x: \(40,\).*Pass x of the new size as well"):
        fitted("groups").predict(g=[3])


def test_data_of_different_lengths(fitted):
    with pytest.raises(
        ValueError, match=r"(?s)does not run on these data \(x: \(2,\), g: \(3,\); y.*still the fit's\).\n.*3.*2"
    ):
        fitted("groups").predict(x=[0.0, 1.0], g=[0, 1, 2])
    with pytest.raises(
        ValueError, match=r"(?s)\(y: \(2,\); x: \(40,\) is still the fit's\).\nPass x of the new size as well"
    ):
        fitted("plain").predict(y=np.zeros(2))
    with pytest.raises(ValueError, match=r"(?s)\(n: 2; x: \(40,\), y: \(40,\) are still the fit's\)"):
        fitted("plate_of_n").predict(n=2)


def test_unknowns_of_rows_are_not_known_of_new_ones(fitted):
    with pytest.raises(ValueError, match=r"(?s)x: \(2,\).*'z'.*\(40,\).*\(2,\)"):
        fitted("local").predict(x=[0.0, 1.0])


def test_groups_of_the_fit(fitted):
    found = mean(fitted("groups"), x=[0.0, 0.0, 1.0], g=[0, 7, 7])
    np.testing.assert_allclose(found, [GROUPS[0], GROUPS[7], GROUPS[7] + 2], atol=0.05)
    np.testing.assert_allclose(mean(fitted("groups"), x=[0.0], g=[3.0]), GROUPS[[3]], atol=0.05)
    with pytest.raises(ValueError, match=r"g\[2\] is -1, which counts from the end"):
        mean(fitted("groups"), x=[0.0, 0.0, 1.0], g=[0, 7, -1])


@pytest.mark.parametrize("bad", [8, 100, -9])
def test_a_group_that_was_not_there_is_refused(fitted, bad):
    message = rf"Data 'g' is an index of 8 entries, 0 to 7; g\[1\] is {bad}: the fit has nothing to say of it"
    with pytest.raises(ValueError, match=message):
        fitted("groups").predict(x=[0.0, 1.0], g=[0, bad])
    with pytest.raises(ValueError, match=message):
        fitted("groups").log_prob(x=[0.0, 1.0], g=[0, bad], y=[0.0, 0.0])
    same = np.where(np.arange(40) == 1, bad, G)
    with pytest.raises(ValueError, match=message):
        fitted("groups").predict(g=same)


def test_log_prob_of_new_data_needs_what_is_observed(fitted):
    with pytest.raises(ValueError, match=r"(?s)other sizes than the fit's \(x: \(2,\)\).*Pass y as well"):
        fitted("plain").log_prob(x=[0.0, 1.0])
    with pytest.raises(ValueError, match=r"(?s)other sizes than the fit's \(x: \(1,\)\).*Pass y as well"):
        fitted("plain").log_prob(x=[0.0])
    found = fitted("plain").log_prob(x=[0.0, 1.0], y=[0.5, 2.5]).value
    np.testing.assert_allclose(found, -np.log(0.1 * np.sqrt(2 * np.pi)), rtol=1e-6)
    assert fitted("plain").log_prob().value.shape == (40,)


def test_new_data_are_checked_as_the_fits(fitted):
    fit = fitted("plain")
    with pytest.raises(TypeError, match="Unknown data 'z' for plain"):
        fit.predict(z=X)
    with pytest.raises(ValueError, match=r"'x' has 1 value\(s\) that are NaN or infinite, the first at x\[1\]"):
        fit.predict(x=[0.0, np.nan])
    with pytest.raises(ValueError, match=r"'x' has dtype <U1; expected numbers"):
        fit.predict(x=["a", "b"])
    with pytest.raises(ValueError, match=r"'x' is empty"):
        fit.predict(x=[])
