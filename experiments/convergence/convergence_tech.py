"""Grown models trained on another domain than their own, technical text: what they gain there and forget of books.

Command:   python experiments/convergence/convergence_tech.py --model books16 --data tech-cpt.txt
               --eval-text tech-val.txt --other-text books-val.txt --tokens 200k --rates 1e-3
               --sweep-tokens 200k --eval-every 50k --seeds 0
Run time:  about 2 minutes for each method and 200,000 tokens on 2 CPU cores that do nothing else.
Expected:  experiments/results/convergence_tech.md: of the methods that freeze the originals LLaMA Pro learns fastest
           and forgets least, then duplicate, SOLAR, LESA; training everything learns and forgets far more.
"""

import sys

import tyro
from convergence import Convergence, main

if __name__ == "__main__":
    main(tyro.cli(Convergence, args=["--name", "tech", *sys.argv[1:]], description=__doc__))
