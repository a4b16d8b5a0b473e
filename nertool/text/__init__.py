"""Documents, label schemes and tokenization."""
