"""ARCH.TAG -> a frozen network seen as stem, blocks 1..L and pooling; its fingerprint; where its file is.

Nothing is imported here: catalog, listing and download need no torch, and the CLI starts without it.

    catalog.py        names, and where torchvision keeps its files
    listing.py        what is stored in the home folder, from file headers alone
    store.py          name or fingerprint -> Backbone: weights file, home folder, download
    backbone.py       the Backbone itself: nodes, torchvision's keys, loading
    resnet.py         a family's description (decomposition.py: what a family has to tell)
    fingerprint.py    the identity of a set of weights
"""
