"""Learning against a critic."""
