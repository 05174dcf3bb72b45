"""Sequences: programs that say the next token given those before it."""
