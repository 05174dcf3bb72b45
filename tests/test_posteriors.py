"""Samplers by their defaults against posteriordb's reference draws, on both engines.

|z| < 4.5 over at most 13 parameters and 4 statistics: a false alarm in 3,000 runs. The rest is in benchmarks/accuracy.py.
"""

import posteriordb
import pytest
from conftest import needs_pyro

import probgen as pg

pytestmark = pytest.mark.skipif(
    not posteriordb.available(), reason="no ../shared/data/posteriordb: no sampler is compared with reference draws"
)
EIGHT, ARMA, SBLRC = "eight_schools-eight_schools_noncentered", "arma-arma11", "sblrc-blr"
MIXTURE, KIDS = "low_dim_gauss_mix-low_dim_gauss_mix", "kidiq-kidscore_momhsiq"
CASES = [
    ("nuts", EIGHT),
    ("nuts", ARMA),
    ("nuts", KIDS),
    ("hmc", ARMA),
    ("hmc", SBLRC),
    ("mala", EIGHT),
    ("mala", SBLRC),
]
TWINS = {EIGHT: "eight_schools_pyro", SBLRC: "linear_regression_pyro", MIXTURE: "two_normals_pyro"}


def check(fit, name):
    agreement = posteriordb.zscores(fit.draws, name)
    assert agreement.worst < 4.5, dict(zip(agreement.parameters, agreement.z.round(1).tolist(), strict=True))
    assert agreement.ess.min() >= 400


@pytest.mark.parametrize(("inference", "name"), CASES)
def test_draws_agree_with_the_reference(inference, name):
    posterior = posteriordb.POSTERIORS[name]
    check(pg.fit(posterior.program, posterior.data(), inference, seed=7), name)


@needs_pyro
@pytest.mark.parametrize("name", TWINS)
def test_pyro_twins_agree_with_the_reference(name):
    from probgen import catalog

    check(pg.fit(catalog.model(TWINS[name]).program, posteriordb.POSTERIORS[name].data(), "nuts", seed=7), name)
