"""Templates of the HTML and Markdown reports."""
