"""Run folders become tables, which can be kept as files and read in place of the folders."""
