"""The network side of inputs: a module for each kind of `nertool.model.inputs`."""
