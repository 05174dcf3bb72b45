"""Pictures of fits, drawn on figures of their own: matplotlib's backend, parameters and open figures stay as they are."""
