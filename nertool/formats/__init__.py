"""Reading and writing labelled text, one file for each format."""
