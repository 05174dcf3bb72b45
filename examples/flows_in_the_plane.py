# %% [markdown]
# # Three flows on two moons
# Normalizing flows turn a Gaussian into the data, invertibly, so that every point has an exact density. The truth is known
# here, so the cost of each flow's shape can be stated in nats. The last picture shows where the Gaussian's circles go.

# %%
import sys
import tempfile
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np

import probgen as pg
from probgen.data.toys import TOYS, two_moons
from probgen.nets.flows import learned

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'flows_in_the_plane.png'}")
x, test, truth = two_moons(50_000, seed=1), two_moons(20_000, seed=2), TOYS["two_moons"].log_prob
entropy = -truth(test).mean()

# %%
fits = {name: pg.fit(name, {"x": x, "dim": 2}, "mle", num_steps=1500) for name in ("realnvp", "maf", "neural_spline")}
for name, fit in fits.items():
    away = -fit.log_prob(x=test).value.mean() - entropy
    print(f"{name}: {entropy + away:.4f} nats on new points, the true density {entropy:.4f}; {fit.seconds:.0f} s")
    assert -0.01 < away < 0.1

# %% The flow itself: circles of the Gaussian and what they become; a straight line between two points' origins.
T = learned(fits["neural_spline"]).bijection
ahead = jax.jit(jax.vmap(lambda u: T.transform_and_log_det(u)[0]))
back = jax.jit(jax.vmap(lambda y: T.inverse_and_log_det(y)[0]))
angle, ends = np.linspace(0, 2 * np.pi, 400), back(x[[0, 7]])
circles = [ahead(radius * np.stack([np.cos(angle), np.sin(angle)], 1)) for radius in (0.5, 1.0, 1.5, 2.0)]
line = ahead(ends[0] + np.linspace(0, 1, 200)[:, None] * (ends[1] - ends[0]))
again = np.abs(ahead(back(test[:1000])) - test[:1000]).max()
print(f"there and back: within {again:.1e}")
assert again < 1e-3

# %%
figure, axes = plt.subplots(1, 5, figsize=(16, 3.4), layout="constrained")
grid = np.stack(np.meshgrid(np.linspace(-1.6, 2.6, 120), np.linspace(-1.2, 1.7, 120)), -1)
densities = {"the truth": truth(grid.reshape(-1, 2))} | {
    k: f.log_prob(x=grid.reshape(-1, 2)).value for k, f in fits.items()
}
for ax, (name, values) in zip(axes, densities.items(), strict=False):
    ax.contourf(*np.moveaxis(grid, -1, 0), np.exp(values).reshape(120, 120), 15, cmap="Blues")
    ax.set(title=name, xticks=[], yticks=[])
axes[4].plot(*x[:2000].T, ".", color="lightgrey", markersize=1)
for circle in circles:
    axes[4].plot(*circle.T, color="C0", linewidth=0.8)
axes[4].plot(*line.T, color="C3")
axes[4].set(title="circles of the Gaussian; a line in it", xticks=[], yticks=[])
figure.savefig(folder / "flows_in_the_plane.png")
