"""Makes `python -m gpicl_flax` the same as the console command `gpicl`."""

import sys

from gpicl_flax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
