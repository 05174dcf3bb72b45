"""What the coordinates of rows are: levels, tokens, prompts, or reals; what models derive of each; the table of named data sets."""
