"""Networks of many tokens, in JAX: products of matrices alone, one point at a time."""
