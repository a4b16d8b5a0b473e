"""Labelling: texts, what people say of them, and models that learn from it meanwhile."""
