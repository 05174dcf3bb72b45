"""Pictures grown from a sample, pixel by pixel or block by block."""
