"""Small programs whose fits are drawn beside the checks of the verdict."""


def two_wells(y=16.0):
    """x is known up to its sign."""
    import numpyro
    import numpyro.distributions as dist

    x = numpyro.sample("x", dist.Normal(0.0, 5.0))
    numpyro.sample("y", dist.Normal(x * x, 2.0), obs=y)


def known_sum(y=1.0):
    """A sum is measured well, its two parts are not: a long thin posterior."""
    import numpyro
    import numpyro.distributions as dist

    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(a + b, 0.2), obs=y)


def spread_out(x=None):
    """Rows of one normal distribution, whose mean and spread are learned."""
    import numpyro
    import numpyro.distributions as dist

    loc = numpyro.param("loc", 0.0)
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    with numpyro.plate("row", 1000 if x is None else len(x)):
        numpyro.sample("x", dist.Normal(loc, scale), obs=x)


def narrowing():
    """A funnel: the spread of x is exp(v / 2). Neal 2003."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    v = numpyro.sample("v", dist.Normal(0.0, 3.0))
    numpyro.sample("x", dist.Normal(0.0, jnp.exp(v / 2)))


def heavy():
    """Tails so heavy that a chain takes hundreds of steps to come back from them."""
    import numpyro
    import numpyro.distributions as dist

    numpyro.sample("v", dist.Cauchy(0.0, 1.0))


PROGRAMS = (two_wells, known_sum, spread_out, narrowing, heavy)
