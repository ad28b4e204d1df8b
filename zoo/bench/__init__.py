"""Benchmarks of architectures: the same data, the same budget, the same measures.

A suite names data, budget, measures and entries; each entry is trained with several seeds, each in an ordinary run
folder of `zoo fit`; a report makes a leaderboard of the folders.
"""
