"""Importance sampling from a guide that is tilted towards the event: a mixture of normals, fitted to points that climbed to it.

    p = E_q[1(score > above) N(u; 0, I) / q(u)],   q = 0.9 sum_k a_k N(m_k, 1.2 S_k) + 0.1 N(0, I)

The estimate is unbiased whatever q is; k-hat of the weights says whether its error can be relied on. Rubinstein and Kroese 2004
(doi:10.1007/978-1-4757-4321-0); k-hat: Vehtari et al. 2024 (arXiv:1507.02646).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data.whole_numbers import generator
from probgen.evaluate.rare.counting import KHAT, khat
from probgen.evaluate.rare.result import Estimate
from probgen.evaluate.rare.splitting import Settings, pilot
from probgen.evaluate.rare.walking import World

OWN = 0.1  # of the law itself in the guide
WIDER = 1.2
FULL = 20  # coordinates up to which covariances are full
MOST_PARTS = 4


def tilted(world: World, seed: int, confidence: float, settings: Settings, law: str) -> Estimate:
    """The probability that the score is above the event's threshold."""
    from scipy.stats import norm

    if world.space.begin is not None:
        raise Incompatible(
            "method='importance' needs a law that is run forward, and this is a posterior: use 'splitting'."
        )
    rng = generator(seed, 6)
    ladder = pilot(world, rng, settings)
    threshold = world.event.above
    inside = ladder.crowd.scores > threshold
    if not ladder.reached or not inside.any():
        raise Incompatible(
            "No point of the pilot run came into the event, to fit a guide to: method='splitting' gives a bound."
        )
    count = settings.num_runs * settings.num_particles
    u, ratio = _draws(rng, ladder.crowd.u[inside], count)
    weights = np.where(world.look(u).scores > threshold, np.exp(ratio), 0.0)
    value, stderr = float(weights.mean()), float(weights.std(ddof=1) / np.sqrt(count))
    if value == 0:
        raise Incompatible("No draw of the guide came into the event: it is no normal's shape. Use method='splitting'.")
    far = norm.ppf(0.5 + confidence / 2) * stderr / value
    return Estimate(
        name="probability", value=value, stderr=stderr, interval=(value * np.exp(-far), min(1.0, value * np.exp(far))),
        confidence=confidence, method="importance", kind="unbiased estimate", effective=value * (1 - value) / stderr**2,
        cost=world.cost, hits=int((weights > 0).sum()), law=law, notes=_about(weights),
    )  # fmt: skip


def _draws(rng: np.random.Generator, points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the guide (count, dim), and log N(u; 0, I) / q(u): (count,)."""
    from scipy.stats import norm

    mixture = _fitted(points)
    own = rng.random(count) < OWN
    state = int(rng.integers(2**31))
    u = mixture.set_params(random_state=state).sample(count)[0]
    u = np.where(own[:, None], rng.standard_normal(u.shape), rng.permutation(u))
    normal = norm.logpdf(u).sum(1)
    guide = np.logaddexp(np.log(1 - OWN) + mixture.score_samples(u), np.log(OWN) + normal)
    return u, normal - guide


def _fitted(points: np.ndarray) -> Any:
    """A mixture of the number of normals that BIC prefers, a little wider than its points."""
    from sklearn.mixture import GaussianMixture

    kind = "full" if points.shape[1] <= FULL and len(points) > 10 * points.shape[1] else "diag"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of EM that has not converged: any guide will do
        parts = range(1, 1 + min(MOST_PARTS, len(points) // 50 or 1))
        found = [
            GaussianMixture(
                k, covariance_type=kind, reg_covar=1e-4, random_state=0, init_params="random_from_data"
            ).fit(points)
            for k in parts
        ]
    best: Any = min(found, key=lambda mixture: mixture.bic(points))
    best.covariances_ = WIDER * best.covariances_
    best.precisions_cholesky_ = best.precisions_cholesky_ / np.sqrt(WIDER)
    return best


def _about(weights: np.ndarray) -> tuple[str, ...]:
    shape = khat(weights[None], "right")
    if shape <= KHAT:
        return ()
    return (
        f"A few weights carry the estimate (k-hat {shape:.2f}), which is then too small more often than not: use 'splitting'.",
    )
