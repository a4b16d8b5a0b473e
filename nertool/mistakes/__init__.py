"""What a model gets wrong, and how that looks on paper."""
