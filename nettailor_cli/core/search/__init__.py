"""The search of `fit`: which blocks go, in which order, and how far.

ranking.py   which block goes next
shrink.py    the student made smaller block by block, with a short training after each
probing.py   how far to go: which candidate to train in full next
choice.py    candidates as rows, what was wanted of them, which one it is
"""
