"""Data as users give them: checked, read, put in words, put on scales."""
