"""Networks from pictures to pictures, for denoisers."""
