"""Grids of trainings beside one another, with statistics, gradients and a report."""
