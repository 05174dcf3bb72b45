"""The game on the Pyro engine: the kernel, what losses are written with, weights, and changes of pictures, in torch."""
