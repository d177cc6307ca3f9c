"""ARCH.TAG -> a frozen network seen as stem, blocks 1..L and pooling; its fingerprint; where its file is.

Nothing is imported here: catalog, listing and download need no torch, and the CLI starts without it.

    families/         where stem, blocks and pooling are in each family of networks: a short file each
    decomposition.py  what such a file has to tell; measures.py: what is found out without being told;
                      tracing.py: a part as operations in a row
    catalog.py        names, preprocessing, costs, and where torchvision keeps its files; networks.json: the table
    listing.py        what is stored in the home folder, from file headers alone
    store.py          name or fingerprint -> Backbone: weights file, home folder, download
    backbone.py       the Backbone itself: nodes, torchvision's keys, loading
    fingerprint.py    the identity of a set of weights
"""
