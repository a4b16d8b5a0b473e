"""Encoders, which let each token see its sentence."""
