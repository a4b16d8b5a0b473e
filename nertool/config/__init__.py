"""The settings of a run: their schema, and the files that hold them."""
