"""Programs as their authors wrote them: arguments, guides, what they read, whether they are still the same."""
