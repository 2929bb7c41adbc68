"""Makes `python -m gpicl_flax` the same as the console command `gpicl`."""

import sys

if __name__ == "__main__":
    # Python puts the working folder first, where a user's random.py or gin.py would take the place of the real one.
    # `main` puts it last.
    if not sys.flags.safe_path:
        del sys.path[0]
    from gpicl_flax.cli.main import run_process

    run_process()
