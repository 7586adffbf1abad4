"""What `benchmarks/chaos.py` is made of: real processes, faults between them, and a checker."""
