"""Programs as their authors wrote them: their arguments, their guides, and what they read, by content."""
