"""Scores, corpus checks and error analysis."""
