"""Runs: a program and data in, a Fit out; on disk, resumed, read again.

conditioning  the target of a program on data      runner    chunks, progress, checkpoints
meaning       what a word means for a program      record    what is written down of a run
fitting       pg.fit                               resuming  pg.resume, pg.load, saving
"""

from probgen.run.conditioning import conditioned as conditioned
from probgen.run.conditioning import given as given
from probgen.run.conditioning import prepared as prepared
from probgen.run.fitting import asked as asked
from probgen.run.fitting import begun as begun
from probgen.run.fitting import default_algorithm as default_algorithm
from probgen.run.fitting import fit as fit
from probgen.run.meaning import meant as meant
from probgen.run.programs import from_file as from_file
from probgen.run.resuming import load as load
from probgen.run.resuming import resume as resume
from probgen.run.resuming import save as save
