"""What arrays of other libraries hold beside numbers (masks, missing values, units, ranges) is honoured or refused, everywhere."""

import decimal

import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.sparse
import xarray as xr
from conftest import ENGINES, needs_pyro

import probgen as pg
from probgen.data.inputs import check_range, read

Y = np.array([0.5, -1.0, 2.0, 1.5])
HOLES = [False, True, False, True]
SHORT = {"inference": "laplace", "progress": False}


def numpyro_mean(y):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(m, 1.0).expand([4]).to_event(1), obs=y)


def pyro_mean(y):
    import pyro
    import pyro.distributions as dist
    import torch

    m = pyro.sample("m", dist.Normal(torch.zeros(()), 1.0))
    pyro.sample("y", dist.Normal(m, torch.ones(4)).to_event(1), obs=y)


MEAN = {"numpyro": numpyro_mean, "pyro": pyro_mean}
EXACT = Y.sum() / (len(Y) + 1)  # the posterior mean of N(0, 1) and four observations of N(m, 1)

REFUSED = {
    "a masked array": (np.ma.array(Y, mask=HOLES), r"'y' is masked at 2 place\(s\), the first at y\[1\].\nLeave those rows"),
    "a masked matrix": (np.ma.array([Y, Y], mask=[4 * [False], HOLES]), r"masked at 2 place\(s\), the first at y\[1, 1\]"),
    "masked values": (np.ma.masked_invalid([0.0, np.nan, 1.0, 2.0]), r"masked at 1 place\(s\), the first at y\[1\]"),
    "masked integers": (np.ma.masked_equal([3, -99, 1, -99], -99), r"masked at 2 place\(s\), the first at y\[1\]"),
    "a list of masked": ([np.ma.array(Y, mask=HOLES), Y], r"masked at 2 place\(s\), the first at y\[0, 1\]"),
    "a masked constant": ([0.5, np.ma.masked, 2.0], r"masked at 1 place\(s\), the first at y\[1\]"),
    "pandas integers": (pd.Series([1, None, 3, 4], dtype="Int64"), r"NaN or infinite, the first at y\[1\]"),
    "pandas floats": (pd.Series([1.5, 2.5, pd.NA], dtype="Float64"), r"NaN or infinite, the first at y\[2\]"),
    "pandas booleans": (pd.array([True, None, False], dtype="boolean"), r"NaN or infinite, the first at y\[1\]"),
    "a pandas frame": (pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [1.0, 2.0]}), r"first at y\[1, 0\]"),
    "labels with none": (pd.Categorical(["a", None, "b"]), r"1 missing value\(s\), the first at y\[1\]"),
    "labels": (pd.Categorical(["a", "b"]), r"dtype object; expected numbers, as from np.unique\(words"),
    "words": (np.array(["a", "b"]), r"dtype <U1; expected numbers, as from np.unique\(words"),
    "a list with None": ([1.0, None, 2.0], r"NaN or infinite, the first at y\[1\]"),
    "xarray with NaN": (xr.DataArray([1.0, np.nan]), r"NaN or infinite, the first at y\[1\]"),
    "xarray with fill": (xr.DataArray([1.0, -9999.0], attrs={"_FillValue": -9999.0}), r"stands for a missing one.*decode_cf"),
    "xarray packed": (xr.DataArray([1, 2], attrs={"scale_factor": 0.01}), r"packed \(scale_factor, add_offset\)"),
    "dates": (pd.Series(pd.to_datetime(["2020-01-01"] * 4)), r"datetime64.*times as numbers since some day"),
    "durations": (np.array([1, 2], "m8[s]"), r"timedelta64.*durations in a unit of your choice"),
    "complex numbers": (Y + 0j, r"complex128; expected numbers: pass real and imaginary part"),
    "a record": (np.array([(1.0, 2)], dtype=[("a", float), ("b", int)]), r"one array for each field"),
    "a sparse matrix": (scipy.sparse.csr_matrix(np.eye(4)), r"sparse matrix \(csr_matrix\); pass y.toarray\(\)"),
    "a sparse array": (scipy.sparse.coo_array(np.eye(4)), r"sparse matrix \(coo_array\); pass y.toarray\(\)"),
    "a huge integer": ([1, 10**30], r"integer beyond 64 bits at y\[1\]"),
    "an unsigned one": (np.array([1, 2**63], np.uint64), r"beyond the integers of precision float64 at y\[1\]"),
    "a set": ({1.0, 2.0}, r"dtype object; expected numbers, not set"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_would_be_lost_is_refused(engine, case):
    value, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pg.fit(MEAN[engine], {"y": value}, **SHORT)


KEPT = {
    "a mask of nothing": np.ma.array(Y, mask=False),
    "an unused mask": np.ma.array(Y, mask=4 * [False]),
    "a series": pd.Series(Y, index=list("dcba")),
    "a nullable series": pd.Series(Y, dtype="Float64"),
    "labels that are numbers": pd.Series(Y).astype("category"),
    "an xarray": xr.DataArray(Y, dims="row", attrs={"units": "m", "_FillValue": -9999.0}),
    "objects": Y.astype(object),
    "decimals": [decimal.Decimal(str(v)) for v in Y],
    "a tuple": tuple(Y),
    "half precision": Y.astype(np.float16),
    "another byte order": Y.astype(">f8"),
    "long doubles": Y.astype(np.longdouble),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_is_whole_is_taken(case):
    found = read("y", KEPT[case])
    np.testing.assert_array_equal(found, Y)
    assert found.dtype.isnative  # as torch takes them
    assert found.dtype.itemsize <= 8


@pytest.mark.parametrize("engine", ENGINES)
def test_arrays_of_other_libraries_give_the_exact_mean(engine):
    import jax.numpy as jnp

    values = [pd.Series(Y, dtype="Float64"), xr.DataArray(Y), np.ma.array(Y), jnp.asarray(Y, "bfloat16")]
    for value in values:
        assert float(pg.fit(MEAN[engine], {"y": value}, **SHORT).posterior["m"].mean()) == pytest.approx(EXACT, abs=0.1)


@needs_pyro
def test_tensors():
    import torch

    for value in (torch.tensor(Y, requires_grad=True), torch.tensor(Y).bfloat16(), [torch.tensor(v) for v in Y]):
        np.testing.assert_array_equal(read("y", value), Y)
    with pytest.raises(ValueError, match="'y' cannot be read as one array"):
        read("y", torch.eye(2).to_sparse())
    gap = torch.tensor([1.0, float("nan")], requires_grad=True)
    with pytest.raises(ValueError, match=r"NaN or infinite, the first at y\[1\]"):
        read("y", gap)


RANGES = {
    "a large float": (np.array([1.0, 1e39]), r"infinite in float32 at y\[1\] \(1e\+39\).\nRescale it, or fit with .*'float64'"),
    "a large integer": (np.array([1, 2**31]), r"beyond the integers of precision float32 at y\[1\] .*precision='float64'"),
    "a negative one": (np.array([-(2**31) - 1, 1]), r"beyond the integers of precision float32 at y\[0\]"),
    "an unsigned one": (np.array([1, 2**32 - 1], np.uint32), r"beyond the integers of precision float32 at y\[1\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", RANGES)
@pytest.mark.parametrize("engine", ENGINES)
def test_numbers_that_a_precision_does_not_have(engine, case):
    value, message = RANGES[case]
    check_range("y", value, "float64")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pg.fit(MEAN[engine], {"y": value}, precision="float32", **SHORT)


@needs_pyro
def test_the_largest_numbers_are_taken():
    for precision, largest in (("float32", 2**31 - 1), ("float64", 2**63 - 1)):
        check_range("y", np.array([largest, -largest - 1]), precision)
        check_range("y", np.array([np.finfo(precision).max]), precision)


# ---- every entrance


@pytest.fixture(scope="module", params=ENGINES)
def fitted(request):
    return pg.fit(MEAN[request.param], {"y": Y}, num_draws=50, **SHORT)


def test_new_data_of_a_fit(fitted):
    masked, missing = np.ma.array(Y, mask=HOLES), pd.Series([1.0, None, 2.0, 3.0], dtype="Float64")
    for word in (fitted.predict, fitted.log_prob):
        with pytest.raises(ValueError, match=r"'y' is masked at 2 place\(s\), the first at y\[1\]"):
            word(y=masked)
        with pytest.raises(ValueError, match=r"'y' has 1 value\(s\) that are NaN or infinite, the first at y\[1\]"):
            word(y=missing)
        with pytest.raises(TypeError, match=r"Unknown data 'z'"):
            word(z=Y)


@needs_pyro
def test_missing_values_that_a_program_handles_are_not_blamed():
    """x is filled in by the program, y is not: Pyro refuses y before its density can be looked at."""
    import pyro
    import pyro.distributions as dist
    import torch

    def filled(x, y):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        x = torch.nan_to_num(x)
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"'y' has 1 value\(s\) that are NaN or infinite, the first at y\[2\]"):
        pg.fit(filled, {"x": np.array([0.0, np.nan, 1.0, 2.0]), "y": np.where(np.arange(4) == 2, np.nan, Y)}, **SHORT)


@pytest.mark.parametrize("engine", ENGINES)
def test_sbc(engine):
    with pytest.raises(ValueError, match=r"'y' is masked"):
        pg.sbc(MEAN[engine], "laplace", data={"y": np.ma.array(Y, mask=HOLES)}, num_simulations=20)


BITS = np.random.default_rng(0).integers(0, 2, (40, 4)).astype(float)


def numpyro_bits(v=None):
    b = numpyro.param("b", np.zeros(4))
    numpyro.sample("v", dist.Bernoulli(logits=b).to_event(1), obs=v)


def pyro_bits(v):
    import pyro
    import pyro.distributions as dist
    import torch

    b = pyro.param("b", torch.zeros(4))
    with pyro.plate("row", len(v)):
        pyro.sample("v", dist.Bernoulli(logits=b).to_event(1), obs=v)


@pytest.fixture(scope="module", params=ENGINES)
def learned(request):
    program = {"numpyro": numpyro_bits, "pyro": pyro_bits}[request.param]
    return pg.fit(program, {"v": BITS}, "mle", num_steps=20, progress=False)


def test_rows_of_a_learned_fit(learned):
    rows = np.ma.array(BITS[:2], mask=[4 * [False], HOLES])
    with pytest.raises(ValueError, match=r"'v' is masked at 2 place\(s\), the first at v\[1, 1\]"):
        learned.log_prob(rows)
    with pytest.raises(ValueError, match=r"'v' has 1 value\(s\) that are NaN or infinite, the first at v\[0, 2\]"):
        learned.log_prob([[0.0, 1.0, None, 1.0]])
    if learned.target.engine == "numpyro":
        with pytest.raises(ValueError, match=r"'v' is masked"):
            learned.energy(rows)


def test_a_mask_says_what_is_unknown_of_a_new_point():
    learned = pg.fit(numpyro_bits, {"v": BITS}, "mle", num_steps=20, progress=False)
    for given in (
        np.ma.array(BITS[0], mask=HOLES),
        np.where(HOLES, np.nan, BITS[0]),
        pd.array([0, None, 1, None], "Int64"),
    ):
        target = learned.condition(v=given)
        np.testing.assert_array_equal(target.data["v known"], ~np.array(HOLES))
        drawn = target.sample(3)["v"]
        np.testing.assert_array_equal(drawn[:, ~np.array(HOLES)], np.asarray(given, float)[[0, 2]][None].repeat(3, 0))


@pytest.mark.parametrize("name", ["rbm", "vae"])
def test_arrays_of_rows(name):
    with pytest.raises(ValueError, match=r"'rows' is masked at 2 place\(s\), the first at rows\[1, 1\]"):
        pg.fit(name, np.ma.array(BITS[:2], mask=[4 * [False], HOLES]), "svi" if name == "vae" else "pcd")
    with pytest.raises(ValueError, match=r"'rows' has 1 value\(s\) that are NaN"):
        pg.fit(name, np.where(np.arange(160).reshape(40, 4) == 7, np.nan, BITS), "svi" if name == "vae" else "pcd")


# ---- arrays that a program reads from outside

OUTSIDE = np.ma.array(Y, mask=HOLES)


def reads_a_global():
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(m, 1.0).expand([4]), obs=OUTSIDE)


def reads_a_default(y=OUTSIDE):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(m, 1.0).expand([4]), obs=y)


def outer():
    reads_a_global()


def looks_at_the_mask():
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    with numpyro.handlers.mask(mask=~OUTSIDE.mask):
        numpyro.sample("y", dist.Normal(m, 1.0).expand([4]), obs=OUTSIDE.data)


def closure(masked):
    def program():
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(m, 1.0).expand([4]), obs=masked)

    return program


@pytest.mark.parametrize("program", [reads_a_global, reads_a_default, outer, closure(OUTSIDE)])
def test_a_masked_array_outside_the_data_is_refused(program):
    with pytest.raises(ValueError, match=r"(?s)The program reads '.*', which is masked at 2 place\(s\).*would be lost"):
        pg.fit(program, {}, **SHORT)


def test_a_program_that_looks_at_the_mask_is_taken():
    fit = pg.fit(looks_at_the_mask, {}, **SHORT)
    assert float(fit.posterior["m"].mean()) == pytest.approx(2.5 / 3, abs=0.1)


def test_samples_that_are_compared():
    from probgen.evaluate.two_sample import wasserstein

    with pytest.raises(ValueError, match=r"'y' is masked at 2 place\(s\), the first at y\[1\]"):
        wasserstein(Y, np.ma.array(Y, mask=HOLES))
