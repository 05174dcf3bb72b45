"""NumPyro programs: their structure, and what is done to them before they are run."""
