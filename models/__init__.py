"""The collection: one file is one model, found by the folder listing."""
