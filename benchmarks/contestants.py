"""How each contestant samples a posterior: a function of the posterior's name that gives a function of a seed.

What the outer function does (imports, model, compilation where the library has a step for it) belongs to the start of
a process; what the inner one does is a run, from the seed to constrained draws as NumPy arrays, one (chain, draw,
*event) a site. Each contestant imports only what its user would; what the benchmark itself needs (the reference
draws, ArviZ) is imported under `untimed`.
"""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import harness
import numpy as np

CHAINS, WARMUP, SAMPLES = 4, 1000, 1000
Draws = dict[str, np.ndarray]
Run = Callable[[int], Draws]
UNTIMED: list[float] = []


@contextlib.contextmanager
def untimed() -> Iterator[None]:
    """Seconds in the block are the benchmark's own, and not counted."""
    begun = time.perf_counter()
    yield
    UNTIMED.append(time.perf_counter() - begun)


def program(name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The NumPyro program of a posterior, and its data."""
    with untimed():
        from posteriordb import POSTERIORS

        entry = POSTERIORS[name]
    return entry.program, entry.data()


def probgen(name: str) -> Run:
    """probgen's NUTS by its defaults."""
    import jax  # noqa: F401  the program's user has imported them
    import numpyro  # noqa: F401

    import probgen as pg

    fit = pg.fit
    function, data = program(name)
    return lambda seed: fit(function, data, "nuts", seed=seed, progress=False).draws


def numpyro(name: str, method: str = "parallel", **settings: Any) -> Run:
    """numpyro.infer.MCMC(NUTS); the second and later runs on one MCMC object."""
    import numpyro

    if method == "parallel":  # a host device for each chain: with fewer NumPyro runs the chains one after the other
        numpyro.set_host_device_count(CHAINS)
    numpyro.enable_x64()
    from jax import random
    from numpyro.infer import MCMC, NUTS

    function, data = program(name)
    mcmc = MCMC(
        NUTS(function, **settings),
        num_warmup=WARMUP,
        num_samples=SAMPLES,
        num_chains=CHAINS,
        chain_method=method,
        progress_bar=False,
    )

    def run(seed: int) -> Draws:
        mcmc.run(random.key(seed), **data)
        return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}

    return run


def blackjax(name: str) -> Run:
    """BlackJAX: window adaptation, then NUTS, one compiled chain called from a thread per core."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import blackjax
    import jax.numpy as jnp
    from numpyro.infer.util import initialize_model

    function, data = program(name)
    info = initialize_model(jax.random.key(0), function, model_kwargs=data)
    shapes = info.param_info.z
    log_density = lambda z: -info.potential_fn(z)  # noqa: E731

    def start(key: Any) -> Any:
        """The first of a hundred points from U(-2, 2) with a finite log density."""
        leaves, tree = jax.tree.flatten(shapes)
        keys = jax.random.split(key, len(leaves))
        points = [
            jax.random.uniform(k, (100, *x.shape), minval=-2, maxval=2) for k, x in zip(keys, leaves, strict=True)
        ]
        points = jax.tree.unflatten(tree, points)
        first = jnp.argmax(jnp.isfinite(jax.lax.map(log_density, points)))
        return jax.tree.map(lambda x: x[first], points)

    def chain(key: Any) -> Any:
        k_start, k_warmup, k_sample = jax.random.split(key, 3)
        adapt = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, parameters), _ = adapt.run(k_warmup, start(k_start), WARMUP)
        step = blackjax.nuts(log_density, **parameters).step

        def one(state: Any, key: Any) -> Any:
            state, _ = step(key, state)
            return state, state.position

        _, positions = jax.lax.scan(one, state, jax.random.split(k_sample, SAMPLES))
        return jax.vmap(info.postprocess_fn)(positions)

    compiled = jax.jit(chain).lower(jax.random.key(0)).compile()

    def run(seed: int) -> Draws:
        keys = jax.random.split(jax.random.key(seed), CHAINS)
        with ThreadPoolExecutor(harness.cores()) as pool:
            chains = list(pool.map(lambda key: jax.block_until_ready(compiled(key)), keys))
        return {k: np.stack([np.asarray(c[k]) for c in chains]) for k in chains[0]}

    return run


def nutpie(name: str, low_rank: bool = False, **backend: Any) -> Run:
    """A PyMC model compiled for nutpie; nutpie's own defaults, or its low-rank metric."""
    warnings.simplefilter("ignore")  # PyTensor's, on a missing BLAS for its C backend, which is not used
    import nutpie
    import pymc_models

    # Freezing, the default with JAX, refuses models with initial values; there is nothing in these to freeze.
    compiled = nutpie.compile_pymc_model(pymc_models.model(name), freeze_model=False, **backend)

    def run(seed: int) -> Draws:
        tree = nutpie.sample(
            compiled,
            chains=CHAINS,
            cores=harness.cores(),
            seed=seed,
            progress_bar=False,
            low_rank_modified_mass_matrix=low_rank,
        )
        posterior = tree.posterior
        return {k: np.asarray(posterior[k].values, float) for k in posterior.data_vars}

    return run


CONTESTANTS: dict[str, Callable[[str], Run]] = {
    "probgen": probgen,
    "numpyro": numpyro,
    "numpyro_dense": functools.partial(numpyro, dense_mass=True),
    "blackjax": blackjax,
    "nutpie_jax": functools.partial(nutpie, backend="jax", gradient_backend="jax"),
    "pymc_nutpie": nutpie,
    "numpyro_vectorized": functools.partial(numpyro, method="vectorized"),
    "numpyro_sequential": functools.partial(numpyro, method="sequential"),
    "pymc_nutpie_low_rank": functools.partial(nutpie, low_rank=True),
}
DEFAULT = ("probgen", "numpyro", "numpyro_dense", "blackjax", "nutpie_jax", "pymc_nutpie")
