"""`probgen view`: a local page over a folder of runs, read and never written.

listing  the runs of a folder          curves  losses and traces, while a run goes on
reading  one run, of its files alone   making  reports and verdicts, by a process of their own
serving  questions and answers          child   that process
admission  who may ask
"""
