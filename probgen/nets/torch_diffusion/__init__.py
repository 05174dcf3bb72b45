"""Diffusion in torch, batches of rows at a time: the twins of `probgen.nets.diffusion`, and a U-Net of pictures."""
