"""Pictures pixel by pixel in Pyro: sums over all pictures, what sees what, draws against probabilities, learning."""

import itertools

import numpy as np
import pytest
from conftest import needs_pyro

pytestmark = needs_pyro
torch = pytest.importorskip("torch")
pytest.importorskip("pyro")

import probgen as pg  # noqa: E402
from probgen.data import load  # noqa: E402
from probgen.nets.pyro_pixels import Pixels, Stacks  # noqa: E402

QUIET = {"progress": False}


def seeded(seed, job):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return job()


def net(num_layers=2, num_filters=6, scale=1.0):
    made = seeded(0, lambda: Stacks(num_layers, num_filters)).double()
    for p in made.parameters():
        p.data.mul_(scale)
    return made


def every(height, width):
    grid = np.array(list(itertools.product([0.0, 1.0], repeat=height * width)))
    return torch.from_numpy(grid.reshape(-1, height, width))


@pytest.mark.parametrize("num_layers", [1, 3])
def test_probabilities_sum_to_one(num_layers):
    x = every(3, 3)
    with torch.no_grad():
        log_p = Pixels(net(num_layers, scale=3.0), (3, 3), 5).log_prob(x)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)
    assert log_p.exp().std() > 1e-4


def test_a_pixel_sees_all_before_it_within_reach_and_nothing_after():
    """The Jacobian of the logits: no pixel after, none beyond reach; all rows above it have no blind spot."""
    layers, side = 2, 9
    x = torch.full((1, side, side), 0.3, dtype=torch.float64, requires_grad=True)
    made = net(layers, scale=2.0)
    i, j = 6, 4
    (slope,) = torch.autograd.grad(made(x)[0, i, j], x)
    seen = slope[0].abs().numpy() > 1e-14
    before = np.arange(side * side).reshape(side, side) < i * side + j
    assert not seen[~before].any()
    rows, columns = np.nonzero(seen)
    assert rows.min() >= i - (layers + 1)
    assert abs(columns - j).max() <= layers + 1
    assert seen[i, j - 1]
    assert all(seen[i - 1, j + d] for d in (-2, -1, 0, 1, 2))


def test_draws_have_the_probabilities_of_their_pictures():
    x, made = every(2, 3), net(scale=3.0)
    fn = Pixels(made.float(), (2, 3), 3)
    with torch.no_grad():
        p = fn.log_prob(x.float()).exp().double().numpy()
    drawn = seeded(1, lambda: fn.sample((20_000,))).reshape(20_000, -1).numpy()
    counts = np.bincount((drawn @ 2 ** np.arange(5, -1, -1)).astype(int), minlength=64)
    expected = 20_000 * p
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * np.sqrt(2 * 63)


def test_the_window_of_reach_changes_no_draw():
    made = net(2, scale=3.0).float()
    drawn = [seeded(2, lambda r=r: Pixels(made, (12, 12), r).sample((4,))) for r in (3, 100)]
    assert (drawn[0] == drawn[1]).all()


def test_a_net_too_wide_for_its_reach_would_show():
    """The same with a reach that is too small: the test above can fail."""
    made = net(4, scale=3.0).float()
    drawn = [seeded(2, lambda r=r: Pixels(made, (12, 12), r).sample((4,))) for r in (1, 100)]
    assert (drawn[0] != drawn[1]).any()


def test_it_learns_digits_and_resumes_and_draws(tmp_path):
    x = load("digits")[:600]
    data, settings = {"x": x, "num_layers": 3, "num_filters": 12}, {"num_steps": 600, "seed": 0, "learning_rate": 0.005}
    fit = pg.fit("pixelcnn_pyro", data, "mle", out=tmp_path / "a", **settings, **QUIET)
    log_p = fit.log_prob().value
    p = np.clip(x.mean(0), 1e-3, 1 - 1e-3)
    independent = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum((1, 2)).mean()
    assert log_p.mean() > independent + 5
    assert pg.load(tmp_path / "a").log_prob().value == pytest.approx(log_p, abs=1e-4)
    drawn = fit.sample(6)["x"]
    assert drawn.shape == (6, 8, 8)
    assert set(np.unique(drawn)) <= {0, 1}
    assert (fit.sample(6)["x"] == drawn).all()


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="expected pictures"):
        pg.fit("pixelcnn_pyro", np.ones((5, 4)), "mle")
    with pytest.raises(ValueError, match="num_layers is 0"):
        pg.fit("pixelcnn_pyro", {"x": load("digits")[:100], "num_layers": 0}, "mle")
