"""Several processes for one job: workers of this machine and of dask's, that lose nothing where one dies.

outcomes  what a job is and what came of it     sending   what workers are sent
crews     worker processes: started, replaced   clusters  the same on dask's workers
child     what such a process does              pool      jobs given out, outcomes as they come

and processes of one fit: peers by jax.distributed, which meet (meeting), or torchrun's; which they are (joining). Each has a share
of the chains (chains), or of the rows of every batch (rows).
"""
