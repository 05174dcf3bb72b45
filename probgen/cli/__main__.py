"""`python -m probgen.cli`: the command line where a launcher, as torchrun, wants a module."""

from probgen.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
