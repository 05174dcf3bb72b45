"""Sweeps: fits of a grid of settings side by side, each a run on disk.

sweeping  pg.sweep                        fitting   one fit, in a worker
grid      axes and points                 figures   what is told of a fit
asking    what is wrong before any fit    table     the xarray.Dataset
"""
