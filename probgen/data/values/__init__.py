"""What the coordinates of rows are: levels, tokens, prompts, or reals; and what models derive of each."""
