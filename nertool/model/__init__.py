"""The network, from integers to scores, labels and probabilities, and its files."""
