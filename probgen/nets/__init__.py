"""Small networks that several models share."""
