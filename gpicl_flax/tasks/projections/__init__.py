"""Random projections of inputs, and the space in which they are drawn."""
