"""Pictures: a model's architecture, and accuracy against cost.

pictures.py       what callers use: a model's architecture as a file; run_pictures.py: all pictures of a run of fit
scene.py          boxes, discs, curves and texts, as plain data
architecture.py   model document -> scene: where everything goes, decided once; arcs.py, legend.py, style.py: its parts
svg.py, png.py    scene -> SVG (plain text, no library), scene -> PNG (matplotlib)
candidates.py     rows of (name, MACs, accuracy) -> a scatter plot (matplotlib); labels.py: names that cover nothing
plotting.py       matplotlib, set up so that equal inputs give equal bytes
"""
