"""Models behind HTTP: requests, batches of them, a page to try a model, and the process that serves them."""
