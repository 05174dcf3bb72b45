"""Programs with a denoiser: their targets, and what is asked of them."""
