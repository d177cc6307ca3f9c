"""Figure 6: test accuracy against the number K of removed blocks, for proxies over 1, 3, 5 and all nodes; ResNet-34.

    python examples/recipes/figure6.py --data DATA -- --precision bf16

Data and runs are those of table1.py: with the same OUT, what the table made is not made again. Writes OUT/figure6.csv
and prints it. A full set is 14 retrainings for every curve; --removed 3 7 11 takes fewer. --miniature tries the script.
"""

from __future__ import annotations

import curves
from protocol import Student
from table1 import SKIPS

FINDING = "dense skips help easy sets only (the curves' figures are not printed there)"

if __name__ == "__main__":
    curves.main(__doc__, "figure6", lambda task: [Student(task, skips) for skips in SKIPS], FINDING)
