"""How the judge's weights are made and measured: `make train-judge`, and the parts that `make bench-judge` shares.

Needs numpy, which the service does not; nothing of this is part of the program.
"""
