"""Sweeps: fits of a grid of settings side by side, each a run on disk.

sweeping  pg.sweep                        workers   worker processes: started, asked, replaced
grid      axes and points                 child     what such a process does
asking    what is wrong before any fit    clusters  the same on dask's workers
sending   what workers are sent           figures   what is told of a fit
fitting   one fit, in a worker            table     the xarray.Dataset
"""
