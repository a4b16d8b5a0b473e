"""Compare a grid of trainings, with statistics and gradients."""
