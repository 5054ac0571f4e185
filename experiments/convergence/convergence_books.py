"""Grown models trained further on their own domain, books, held against the base trained with as many operations.

Command:   python experiments/convergence/convergence_books.py --model books16 --data books-cpt.txt
               --eval-text books-val.txt --other-text books-val.txt
Run time:  about 2 hours for each seed on 2 CPU cores, and half an hour for the learning rates. A stopped experiment
           goes on where it was; two processes with different --methods, each on a core of its own, are 12 % faster.
Expected:  experiments/results/convergence_books.md.
"""

import sys

import tyro
from convergence import Convergence, main

if __name__ == "__main__":
    main(tyro.cli(Convergence, args=["--name", "books", *sys.argv[1:]], description=__doc__))
