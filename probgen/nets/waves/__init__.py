"""Networks of sound, in JAX: dilated causal convolutions, and what their outputs say of a sample."""
