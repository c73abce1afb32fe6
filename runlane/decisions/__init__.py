"""A decision on its way to a run: how it is made, signed by its face, and verified by a worker."""
