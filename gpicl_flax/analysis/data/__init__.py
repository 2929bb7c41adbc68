"""Makes tables of run folders. The tables can be kept as files and read in place of the folders."""
