# %% [markdown]
# # A Pyro program, as it is
# A program for Pyro takes a batch of rows and registers its modules. Nothing is changed to learn it here: the same two methods go
# to Pyro's own SVI.

# %%
import pyro
import pyro.distributions as dist
import torch
from torch import nn

import probgen as pg
from probgen.data import load

x = load("digits")  # 1797 pictures of 8 x 8 bits


class Autoencoder(nn.Module):
    def __init__(self, num_latents=6):
        super().__init__()
        self.prior = torch.zeros(num_latents), torch.ones(num_latents)
        self.encoder = nn.Sequential(
            nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 2 * num_latents)
        )
        self.decoder = nn.Sequential(
            nn.Linear(num_latents, 512),
            nn.Unflatten(1, (32, 4, 4)),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
            nn.Flatten(1, 2),
        )

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(*self.prior).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(2), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("row", len(x)):
            mean, log_sd = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(mean, log_sd.exp()).to_event(1))


net = Autoencoder()
fit = pg.fit(pg.Model(net.model, guide=net.guide), {"x": x[:1437]}, inference="svi", num_steps=1500)
print(fit.diagnose())

# %% [markdown]
# ## A bound on unseen rows, and the true posterior of a code beside the encoder's

# %%
print(f"{fit.log_prob(x[1437:], num_particles=100).value.mean():.2f} nats a row")
chains = pg.fit(fit.condition(x=x[1500]), inference="nuts")
print(chains.diagnose().headline)
print(f"mean of z: {chains.draws['z'].mean((0, 1, 2)).round(2)} by NUTS")
print(f"           {fit.encode(x[1500:1501])['z'][0].round(2)} by the encoder")
