"""Programs that say how a point arises, and have no density."""
