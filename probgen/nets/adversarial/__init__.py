"""Networks of generators and critics."""
