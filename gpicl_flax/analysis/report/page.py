"""The page of a report: its figures, captions and tables as static HTML."""

import html
import urllib.parse
from collections.abc import Sequence

import pandas as pd

from gpicl_flax.analysis.figures.chart import Chart

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; height: auto; }
figure { margin: 0 0 1rem; }
figcaption, .note { color: #444; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: 0.2rem 0.7rem; text-align: left; white-space: nowrap; }
table.wraps th, table.wraps td { white-space: normal; vertical-align: top; }
"""


def render(title: str, sections: Sequence[str]) -> str:
    """Returns a page of sections that are HTML already."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def chart_section(chart: Chart) -> str:
    """Returns a figure with its caption and links to its files."""
    name, title = urllib.parse.quote(chart.name), html.escape(chart.heading)
    endings = ("png", "svg", "csv") if chart.numbers is not None else ("png", "svg")
    links = " ".join(f'<a href="{name}.{ending}">{ending.upper()}</a>' for ending in endings)
    picture = f'<a href="{name}.svg"><img src="{name}.png" alt="{title}"></a>'
    caption = f"<figcaption>{html.escape(chart.caption)}</figcaption>"
    return f"<h2>{title}</h2>\n<figure>{picture}\n{caption}</figure>\n<p>{links}</p>"


def table_section(title: str, table: pd.DataFrame, note: str, *, wraps: bool = False, level: int = 2) -> str:
    """Returns a table under a heading of a level, with a paragraph about it; its cells hold sentences if it `wraps`."""
    with pd.option_context("display.max_colwidth", None):
        shown = table.to_html(index=False, border=0, na_rep="", justify="left", classes="wraps" if wraps else None)
    return f'<h{level}>{html.escape(title)}</h{level}>\n<p class="note">{html.escape(note)}</p>\n{shown}'


def list_section(title: str, items: Sequence[str]) -> str:
    """Returns lines under a heading."""
    lines = "\n".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"<h2>{html.escape(title)}</h2>\n<ul>\n{lines}\n</ul>"
