"""The most probable values of finite unknowns."""
