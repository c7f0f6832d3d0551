"""A report of a tuning run as a page of its own: text, tables, and pictures where they are. Nothing is fetched from
elsewhere, and nothing of the data is taken for markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from . import words

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .7rem; border-bottom: 1px solid #ddd }
td:not(:first-child), th:not(:first-child) { text-align: right } img { max-width: 100% }
pre { background: #f5f5f5; padding: 1rem; overflow: auto; line-height: 1.25 }
.better { color: #06702f } .worse { color: #a11 }
"""


def page(run: Mapping[str, Any], report: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The page as HTML.

    Args:
        run: the record of the run.
        report: of it.
        pictures: names of files beside the page, by title.
    """
    head = f"<title>{escape(str(run['id']))}</title>\n<style>{_STYLE}</style>"
    start = ("<!doctype html>", '<html lang="en">', '<meta charset="utf-8">', head)
    return "\n".join((*start, *_body(run, report, pictures), "</html>", ""))


def _body(run: Mapping[str, Any], report: Mapping[str, Any], pictures: Mapping[str, str]) -> Iterator[str]:
    recipe = run["recipe"]
    yield f"<h1>{escape(run['id'])}: {escape(recipe['method'])} on {escape(run['base']['name'])}</h1>"
    yield f"<p>{escape(report['objective'])}, {run['step']} of {run['steps']} steps, {escape(run['state'])}</p>"
    yield from _figures(report)
    for title, file in pictures.items():
        yield f'<h2>{escape(title)}</h2>\n<img src="{escape(file)}" alt="{escape(title)}">'
    yield "<h2>In full</h2>"
    yield f"<pre>{escape(chr(10).join(words.lines(report)))}</pre>"


def _figures(report: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    yield "<table>"
    yield _row(("", "before", "after", "difference", ""), "th")
    for name, figure in report["figures"].items():
        *values, verdict = words.cells(figure)
        yield _row((words.title(name), *values, verdict), "td", verdict if verdict in ("better", "worse") else "")
    yield "</table>"


def _row(cells: Sequence[str], tag: str, kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f"<tr{marked}>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
