"""Sweeps: fits of a grid of settings side by side, each a run on disk.

grid      axes and points, checked        child     what a worker process does
asking    what is wrong before any fit    workers   worker processes: started, asked, replaced
agreeing  is a run on disk one of these   clusters  the same on dask's workers
fitting   one fit, in a worker            table     the xarray.Dataset
figures   what a sweep tells of a fit     sweeping  pg.sweep
"""
