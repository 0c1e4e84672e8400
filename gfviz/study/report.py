"""Reports as one HTML file: it opens without a network, follows the reader's light or dark setting, and prints.

Every text given to a report is escaped; figures are Plotly figures and carry their data in the file, plotly.js too.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.errors import GfvizError
from gfviz.figures.palette import DARK, LIGHT, Theme
from gfviz.files import atomic_write_text

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# No address may be loaded and no form sent, whatever a hostile text would make of the page.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)


@dataclass
class Report:
    """A page in the making: add parts in the order in which they are to be read, then `write` it.

    >>> report = Report("A study", "What was measured, and how.")
    >>> report.section("Results")
    >>> report.text("All values are below 1 < 2.")
    >>> "below 1 &lt; 2" in report.html()
    True
    """

    title: str
    summary: str
    _parts: list[str] = field(default_factory=list, repr=False)
    _contents: list[tuple[str, str]] = field(default_factory=list, repr=False)
    _figures: int = 0

    def section(self, title: str) -> None:
        """Begin a section; its title enters the table of contents."""
        anchor = f"part-{len(self._contents) + 1}"
        self._contents.append((anchor, title))
        self._parts.append(f'<h2 id="{anchor}">{_text(title)}</h2>')

    def text(self, *paragraphs: str) -> None:
        """Add paragraphs of plain text; `code` between backticks is set in a fixed pitch."""
        self._parts += [f"<p>{_prose(paragraph)}</p>" for paragraph in paragraphs]

    def points(self, lines: Sequence[str]) -> None:
        """Add a bulleted list, one plain text a line."""
        self._parts.append("<ul>" + "".join(f"<li>{_prose(line)}</li>" for line in lines) + "</ul>")

    def figure(self, figure: go.Figure, caption: str) -> None:
        """Add a Plotly figure; `caption` says what is to be seen in it.

        Colours of text, axes and background are the page's, so leave them unset in the figure.
        """
        self._figures += 1
        name = f"figure-{self._figures}"
        content = json.loads(str(figure.to_json()))
        content["layout"].pop("template", None)
        height = int(content["layout"].get("height") or 420)
        self._parts.append(
            f'<figure><div class="plot" id="{name}" style="min-height:{height}px" role="group" '
            f'aria-label="{_text(caption)}"></div><figcaption>{_prose(caption)}</figcaption></figure>'
            f'<script type="application/json" data-plot="{name}">{_inert(content)}</script>'
        )

    def table(
        self,
        frame: pd.DataFrame,
        caption: str,
        formats: dict[str, Callable[[Any], str]] | None = None,
        marks: dict[str, Callable[[Any], str]] | None = None,
    ) -> None:
        """Add a table, its index left out.

        `formats` turns a column's values into text (numbers default to 4 significant digits); `marks` gives a column's
        cells one of the looks "good", "bad", "quiet" or "". Raises `GfvizError` for a column that is not there.
        """
        formats, marks = formats or {}, marks or {}
        missing = [name for name in (*formats, *marks) if name not in frame.columns]
        if missing:
            raise GfvizError(f"the table has no column {missing[0]!r}: it has {', '.join(map(str, frame.columns))}")
        head = "".join(f'<th scope="col">{_text(str(name))}</th>' for name in frame.columns)
        rows = []
        for values in frame.itertuples(index=False, name=None):
            cells = []
            for name, value in zip(frame.columns, values):
                shown = formats[name](value) if name in formats else _shown(value)
                look = marks[name](value) if name in marks else ""
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                look = " ".join(part for part in ("number" if number else "", look) if part)
                cells.append(f'<td class="{look}">{_text(shown)}</td>' if look else f"<td>{_text(shown)}</td>")
            rows.append("<tr>" + "".join(cells) + "</tr>")
        self._parts.append(
            f'<div class="wide"><table><caption>{_prose(caption)}</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )

    def html(self) -> str:
        """The page as a string; plotly.js (about 5 MB) is in it where there is a figure."""
        scripts = ""
        if self._figures:
            from plotly.offline import get_plotlyjs

            scripts = (
                f"<script>{get_plotlyjs()}</script><script>{_SCRIPT.replace('THEMES', _inert(_templates()))}</script>"
            )
        contents = "".join(f'<li><a href="#{anchor}">{_text(title)}</a></li>' for anchor, title in self._contents)
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{_text(self.title)}</title><style>{_STYLE}</style></head><body><main>"
            f'<h1>{_text(self.title)}</h1><p class="summary">{_prose(self.summary)}</p>'
            f"<nav><ol>{contents}</ol></nav>"
            "<noscript><p>The figures need JavaScript; texts and tables do not.</p></noscript>"
            f"{''.join(self._parts)}</main>{scripts}</body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the page to `path`, whole or not at all, and return the path."""
        path = Path(path)
        atomic_write_text(path, self.html())
        return path


def _text(value: str) -> str:
    # A lone surrogate (half a character, as broken tokenizers make them) cannot be written as UTF-8.
    return html.escape(value.encode("utf-8", "replace").decode("utf-8"))


def _prose(value: str) -> str:
    pieces = _text(value).split("`")
    if len(pieces) % 2 == 0:
        return "`".join(pieces)
    return "".join(f"<code>{piece}</code>" if odd % 2 else piece for odd, piece in enumerate(pieces))


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _inert(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _templates() -> dict[str, Any]:
    from gfviz.figures import blank

    found = {}
    for theme in ("light", "dark"):
        template = blank(theme, 100).layout.template.to_plotly_json()
        template["layout"]["font"]["family"] = "system-ui, sans-serif"
        found[theme] = json.loads(json.dumps(template))
    return found


_SCRIPT = """
(() => {
  const themes = THEMES;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll("script[data-plot]")].map((source) => {
    const content = JSON.parse(source.textContent);
    return { node: document.getElementById(source.dataset.plot), content };
  });
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const draw = () => {
    for (const { node, content } of figures) {
      const template = themes[dark.matches ? "dark" : "light"];
      const modebar = { bgcolor: "rgba(0,0,0,0)" };
      const layout = { ...content.layout, template, modebar, uirevision: "kept" };
      Plotly.react(node, content.data, layout, options);
    }
  };
  draw();
  dark.addEventListener("change", draw);
})();
"""


def _colours(theme: Theme, good: str, bad: str) -> str:
    """The figures' theme as the page's variables, with the two colours that only words of a table have."""
    return (
        f"--back: {theme.background}; --surface: {theme.surface}; --text: {theme.text}; --quiet: {theme.quiet}; "
        f"--line: {theme.grid}; --accent: {theme.accent}; --good: {good}; --bad: {bad};"
    )


_STYLE = (
    f"""
:root {{ color-scheme: light dark; {_colours(LIGHT, "#00684c", "#b03a00")} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_colours(DARK, "#4fc9a2", "#ff9d5c")} }} }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.6 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3rem 0 .5rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p, ul { max-width: 44rem; }
.summary { font-size: 1.1rem; color: var(--quiet); }
nav ol { padding-left: 1.2rem; columns: 2 18rem; font-size: .95rem; }
a { color: var(--accent); }
code { font: .9em ui-monospace, monospace; background: var(--surface); padding: .1em .3em; border-radius: 4px;
  overflow-wrap: anywhere; }
figure { margin: 1.5rem 0 2rem; }
figcaption, caption { color: var(--quiet); font-size: .9rem; text-align: left; max-width: 44rem; }
caption { padding-bottom: .5rem; }
.wide { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--back); min-width: 9rem; }
td.number { text-align: right; white-space: nowrap; }
td.good { color: var(--good); font-weight: 600; }
td.bad { color: var(--bad); font-weight: 600; }
td.quiet { color: var(--quiet); }
@media print { nav { display: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""
)
