"""Find annotation errors by cross-validation, and search for good settings."""
