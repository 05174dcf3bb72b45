"""What pictures are compared by: responses to filters, and which of them go together."""
