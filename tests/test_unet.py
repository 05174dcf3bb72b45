"""The U-Net in JAX: torch's weight for weight, and the programs of pictures that use it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen.data import load
from probgen.data.dequantise import dequantised
from probgen.datasets import labels
from probgen.nets.pictures.unet import Conv, Linear, Norm, UNet

SMALL = {"num_filters": 8, "halvings": 1, "num_blocks": 1}
LEARN = {"num_steps": 60, "batch_size": 32, "learning_rate": 0.01, "progress": False, "seed": 1}


def taken(ours, theirs):
    """Our layers in the order of torch's modules, each with torch's weights."""
    if isinstance(ours, Norm):
        found = {"scale": theirs.weight, "shift": theirs.bias}
    elif isinstance(ours, Linear):
        found = {"weight": theirs.weight.T, "bias": theirs.bias}
    else:
        found = {"weight": theirs.weight.permute(2, 3, 1, 0), "bias": theirs.bias}
    found = {k: jnp.asarray(v.detach().numpy()) for k, v in found.items()}
    assert all(getattr(ours, k).shape == v.shape for k, v in found.items())
    return eqx.tree_at(lambda layer: [getattr(layer, k) for k in found], ours, list(found.values()))


def copied(ours, theirs):
    """Our net with torch's weights; both name their parts alike."""
    if isinstance(ours, Norm | Linear | Conv):
        return taken(ours, theirs)
    if isinstance(ours, tuple):
        return tuple(copied(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(ours, eqx.Module):
        parts = {k: v for k, v in vars(ours).items() if isinstance(v, eqx.Module | tuple)}
        new = {k: copied(v, getattr(theirs, k)) for k, v in parts.items()}
        if getattr(ours, "label", None) is not None:
            new["label"] = jnp.asarray(theirs.label.weight.detach().numpy())
        return eqx.tree_at(
            lambda m: [getattr(m, k) for k in new], ours, list(new.values()), is_leaf=lambda x: x is None
        )
    raise TypeError(type(ours))


@needs_pyro
@pytest.mark.parametrize("shape", [(8, 8), (7, 9, 1), (13, 10, 3)])
def test_it_says_what_torchs_says_with_the_same_weights(shape):
    import torch

    from probgen.nets.torch_diffusion.unet import UNet as Torchs

    sizes = (shape[2] if len(shape) == 3 else 1, (8, 16, 24), 1, 3, True)
    with torch.random.fork_rng():
        theirs = Torchs(*sizes)
    draws = torch.Generator().manual_seed(0)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=draws)
    ours = copied(UNet(*sizes, key=jax.random.key(0)), theirs)
    assert sum(a.size for a in jax.tree.leaves(ours)) == sum(p.numel() for p in theirs.parameters())
    x, level, label = (
        torch.randn(4, *shape, generator=draws),
        torch.tensor([-3.0, 0.0, 1.0, 4.0]),
        torch.tensor([0, 1, 2, -1]),
    )
    with torch.no_grad():
        wanted = theirs(x, level, label).numpy()
    given = [jnp.asarray(a.numpy()) for a in (x, level, label)]
    np.testing.assert_allclose(jax.vmap(ours)(*given), wanted, atol=2e-5 * np.abs(wanted).max())
    unlabelled = jax.vmap(ours)(*given[:2])
    np.testing.assert_allclose(unlabelled[3], wanted[3], atol=2e-5 * np.abs(wanted).max())
    assert (np.abs(unlabelled - wanted).reshape(4, -1).max(1)[:3] > 1e-3).all()


def test_it_is_small_unless_told_begins_at_zero_and_checks_its_sizes():
    net = eqx.filter_eval_shape(UNet, key=jax.random.key(0))
    assert sum(a.size for a in jax.tree.leaves(net)) < 500_000
    assert not UNet(1, (8, 16), 1, key=jax.random.key(0))(jnp.ones((8, 8)), jnp.zeros(())).any()
    with pytest.raises(ValueError, match=r"A U-Net's widths are \(16, 20\); 20 is no multiple of 8"):
        UNet(1, (16, 20), key=jax.random.key(0))
    with pytest.raises(ValueError, match="num_blocks is 0; it must be at least 1"):
        UNet(1, num_blocks=0, key=jax.random.key(0))


@pytest.mark.slow  # most of it compiles
def test_pictures_of_classes_are_learned_and_drawn():
    x, label = dequantised(16 * load("digits_grey")[:600], levels=17), labels("digits_grey")[:600]
    fit = pg.fit("edm_images_numpyro", {"x": x, "label": label, **SMALL}, "denoising", unlabelled=0.1, **LEARN)
    loss = fit.records["loss"][0]
    assert loss[-10:].mean() < 0.8 * loss[0]
    drawn = [
        fit.sample(6, label=list(label), seed=3, sampler="ddim", num_steps=3, guidance=2.0)["x"]
        for label in (range(6), range(5, -1, -1))
    ]
    assert drawn[0].shape == (6, 8, 8)
    assert np.isfinite(drawn).all()
    assert (np.abs(drawn[0] - drawn[1]).max((1, 2)) > 1e-3).all()


def test_pictures_have_channels_and_odd_sides_and_rows_of_numbers_are_refused():
    x = np.random.default_rng(0).normal(size=(40, 5, 7, 2))
    fit = pg.fit("velocity_images_numpyro", {"x": x, **SMALL}, "flow_matching", **LEARN | {"num_steps": 3})
    assert fit.sample(3, sampler="ddim", num_steps=2)["x"].shape == (3, 5, 7, 2)
    with pytest.raises(ValueError, match="expected pictures"):
        pg.fit("velocity_images_numpyro", {"x": x.reshape(40, -1)}, "flow_matching", **LEARN)
