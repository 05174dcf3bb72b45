"""Textures: pictures that a sample of them says by the neighbourhoods of its pixels."""
