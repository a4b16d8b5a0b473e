"""The network: from features of tokens to label scores, label sequences and probabilities."""
