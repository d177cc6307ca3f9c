"""The search of `fit`: which blocks go, in which order, and how far. The trainings are in `stages.trials`.

asked.py     what was typed, and what of it a run remembers
ranking.py   which block goes next
probe.py     a network's loss before it is trained
probing.py   how far to go: which candidate to train in full next
choice.py    candidates as rows, what was wanted of them, which one it is
"""
