"""Figure 5: test accuracy against the number K of removed blocks, with the teacher and without; ResNet-34, 3 skips.

    python examples/recipes/figure5.py --data DATA -- --precision bf16

Data and runs are those of table1.py: with the same OUT, what the table made is not made again. Writes OUT/figure5.csv
and prints it. A full set is 14 retrainings for every curve; --removed 3 7 11 takes fewer. --miniature tries the script.
"""

from __future__ import annotations

import curves
from protocol import Student

FINDING = "without the teacher accuracy is lower at every K, except on SVHN (the curves' figures are not printed there)"

if __name__ == "__main__":
    curves.main(
        __doc__, "figure5", lambda task: [Student(task, "3", with_teacher) for with_teacher in (True, False)], FINDING
    )
