"""The look that figures share."""

import io

from gpicl_flax.analysis.figures import chart


def test_a_legend_that_is_wider_than_its_figure_gets_fewer_columns():
    figure, (axes,) = chart.panels(1)
    for name in ("unseen tasks, fashion_mnist", "seen tasks, fashion_mnist", "unseen tasks, mnist"):
        axes.plot([0, 1], label=name)
    chart.legend(figure, columns=3)
    figure.savefig(io.BytesIO())
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= axes.get_window_extent().y0
