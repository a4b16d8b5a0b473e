"""Words, labels and files: everything before numbers reach the network."""
