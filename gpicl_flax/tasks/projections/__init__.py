"""Random projections of inputs and the space that they are drawn in."""
