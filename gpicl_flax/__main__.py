"""`python -m gpicl_flax` is the console command `gpicl`."""

import sys

from gpicl_flax import cli

if __name__ == "__main__":
    sys.exit(cli.main())
