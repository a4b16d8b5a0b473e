"""Trained models at work: files of a model, prediction, and the tagger."""
