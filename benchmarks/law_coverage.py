"""How often the 95% intervals of scaling laws hold the truth, on simulated sweeps whose constants are known.

    python benchmarks/law_coverage.py [--sweeps N] [--draws N] [--plain]

A row for each law (of losses, E + A n^-alpha, and of accuracies, which saturate), number of seeds and number of sizes.
Its cells are the fraction of sweeps whose interval holds the constant, or the law at four times the largest size, and
in brackets the median width of that interval as a share of the truth. The noise is that of
`stats.law_coverage.TRUTHS`. With --plain, seeds are drawn with replacement, as the usual bootstrap does: its intervals
are too narrow.
"""

import argparse

from gpicl_flax.analysis.stats import law_coverage, seed_draws

SEEDS, SIZES = (3, 4, 5, 8), (5, 6, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sweeps", type=int, default=400, metavar="N", help="sweeps a row (default %(default)s)")
    parser.add_argument("--draws", type=int, default=300, metavar="N", help="draws a sweep (default %(default)s)")
    parser.add_argument("--plain", action="store_true", help="draw seeds with replacement")
    arguments = parser.parse_args()
    resample = seed_draws.with_replacement if arguments.plain else seed_draws.weights
    for name, truth in law_coverage.TRUTHS.items():
        print(f"{name}: {truth.form.formula}\n")
        print(f"| seeds | sizes | {' | '.join([*truth.form.constants, law_coverage.UNSEEN])} |")
        print("|---" * (3 + len(truth.form.constants)) + "|")
        for seeds in SEEDS:
            for sizes in SIZES:
                table = law_coverage.coverage(
                    truth,
                    sizes=sizes,
                    seeds=seeds,
                    sweeps=arguments.sweeps,
                    draws=arguments.draws,
                    resample=resample,
                )
                cells = [f"{row.coverage:.1%} ({row.width:.2f})" for row in table.itertuples()]
                print(f"| {seeds} | {sizes} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
