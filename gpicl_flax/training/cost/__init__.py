"""The cost of training programs, from shapes alone: flops, memory, traffic, compilation for chips that are not here."""
