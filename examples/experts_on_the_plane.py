# %% [markdown]
# # Two experts on the plane: AND and OR
# Neural energies of rings and of moons, learned by denoising score matching. AND is the product of their densities, in which
# each has a veto; OR is their equal mixture, which needs both constants. Langevin chains draw from both.

# %%
import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import numpyro

import probgen as pg
from probgen.data.toys import rings, two_moons
from probgen.measures import reals

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'experts_on_the_plane.png'}")
learner = pg.inference.ScoreMatching(noise=0.15, num_steps=3000, learning_rate=5e-3)
fits = [pg.fit("neural_ebm", {"x": x, "width": 64}, learner, seed=1) for x in (rings(5000), 1.5 * two_moons(5000))]
experts = [(fit.condition(), fit.log_z().value) for fit in fits]


# %% The experts are programs too: `block` keeps their sites out of this one's trace.
def either():
    x = numpyro.sample("x", reals(2))
    with numpyro.handlers.block():
        parts = [expert.log_density(x) - log_z for expert, log_z in experts]
    numpyro.factor("either", jnp.logaddexp(*parts))


targets, mala = {"AND": pg.product(*fits), "OR": either}, pg.inference.MALA(start="uniform")
draws = {name: pg.fit(t, inference=mala, seed=2).draws["x"].reshape(-1, 2) for name, t in targets.items()}
small = pg.inference.ULA(step_size=0.15, thin=1, start="uniform", num_warmup=0, num_samples=200, num_chains=1)
path = pg.fit(either, inference=small).draws["x"][0]

# %% Draws against quadrature on a grid: shares of squares of side 1/2. Likely: denser than the lowest 1 % of an expert's rows.
grid = np.stack(np.meshgrid(*[np.arange(-4, 4, 0.05) + 0.025] * 2), -1).reshape(-1, 2)
a, b = (np.exp(-fit.energy(x=grid) - log_z) for fit, (_, log_z) in zip(fits, experts, strict=True))
p = {"rings": a, "moons": b, "AND": a * b, "OR": (a + b) / 2}
for name, x in draws.items():
    counts, exact = (np.histogram2d(*y.T, 16, [[-4, 4]] * 2, weights=w)[0] for y, w in ((x, None), (grid, p[name])))
    far = np.abs(counts / counts.sum() - exact / exact.sum()).sum() / 2
    likely = np.all([fit.energy(x=x) < np.quantile(fit.energy(), 0.99) for fit in fits], axis=0).mean()
    print(f"{name}: total variation from quadrature {far:.3f}; draws that both experts find likely: {likely:.3f}")
    assert far < 0.12
    assert likely > 0.75 if name == "AND" else likely < 0.6
figure, axes = plt.subplots(1, 5, figsize=(15, 3.3), layout="constrained")
for ax, title in zip(axes, [*p, "200 Langevin steps on OR"], strict=True):
    ax.imshow(np.sqrt(p.get(title, p["OR"])).reshape(160, 160), origin="lower", extent=(-4, 4, -4, 4), cmap="Blues")
    ax.plot(*draws.get(title, path[:0])[::6].T, ".", color="black", markersize=1)
    ax.set(title=title, xticks=[], yticks=[])
axes[4].plot(*path.T, color="C3", linewidth=0.8)
figure.savefig(folder / "experts_on_the_plane.png")
