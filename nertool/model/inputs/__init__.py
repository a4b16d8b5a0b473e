"""What a token brings into the network, one file for each kind of input."""
