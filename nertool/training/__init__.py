"""Learning: the loop, its update rules, and a whole run from config to model."""
