"""Token strings for human eyes: every character visible, none of them able to act."""

from __future__ import annotations

import html
import re
import unicodedata

# What has a picture that fonts really hold; other control characters are written as their code point.
_PICTURES = {"\n": "↵", "\t": "⇥"}
_NAMED = {
    "\u00ad": "SHY",
    "\u061c": "ALM",
    "\u200b": "ZWSP",
    "\u200c": "ZWNJ",
    "\u200d": "ZWJ",
    "\u200e": "LRM",
    "\u200f": "RLM",
    "\u202a": "LRE",
    "\u202b": "RLE",
    "\u202c": "PDF",
    "\u202d": "LRO",
    "\u202e": "RLO",
    "\u2060": "WJ",
    "\u2066": "LRI",
    "\u2067": "RLI",
    "\u2068": "FSI",
    "\u2069": "PDI",
    "\ufeff": "BOM",
}
# Letters and marks that Unicode has drawn as nothing (Default_Ignorable_Code_Point), and the two blank symbols.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U0001d159\U000e0000-\U000e0fff]"
)


def visible_token(label: str, spaces: bool = True, limit: int = 200) -> str:
    """`label` with control, invisible, direction and lone surrogate characters written out, cut at `limit` characters.

    Leading and trailing spaces become ␣ (where `spaces`), a newline ↵; marks that turn the reading direction are named,
    so that no token can change how the text around it is read. An empty label becomes "∅".

    >>> visible_token(" the"), visible_token("a\\nb"), visible_token("\\u202eevil"), visible_token("")
    ('␣the', 'a↵b', '⟨RLO⟩evil', '∅')
    """
    if not label:
        return "∅"
    if len(label) > limit:
        label = label[: limit - 1] + "…"
    body = label
    lead = tail = 0
    if spaces:
        body = label.strip(" ")
        lead = len(label) - len(label.lstrip(" ")) if body else len(label)
        tail = len(label) - lead - len(body)
    # Most tokens hold nothing to write out: asking once is cheaper than asking for every character.
    plain = body.isprintable() and not _BLANK.search(body)
    return "␣" * lead + (body if plain else "".join(_visible(mark) for mark in body)) + "␣" * tail


def _visible(mark: str) -> str:
    if mark in _NAMED:
        return f"⟨{_NAMED[mark]}⟩"
    if mark in _PICTURES:
        return _PICTURES[mark]
    kind = unicodedata.category(mark)
    if _BLANK.match(mark) or kind in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or (kind == "Zs" and mark != " "):
        return f"⟨U+{ord(mark):04X}⟩"
    return mark


def plotly_text(label: str) -> str:
    """`visible_token` for Plotly, which reads a subset of HTML in tick labels, legends and hovers.

    >>> plotly_text("<b>x</b>")
    '&lt;b&gt;x&lt;/b&gt;'
    """
    return html.escape(visible_token(label), quote=False)


def number(value: float | None, digits: int = 4) -> str:
    """A number short enough for a card: significant digits, scientific only where it must be; "–" where there is none.

    >>> number(0.0123456), number(1234567.0), number(None), number(0.0), number(3.2e-7)
    ('0.01235', '1,234,567', '–', '0', '3.2e-07')
    """
    if value is None or value != value:
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1e3 and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """A span of time as people say it.

    >>> duration(0.0042), duration(75), duration(7300), duration(None)
    ('4.2 ms', '1 min 15 s', '2 h 1 min', '–')
    """
    if seconds is None or seconds != seconds:
        return "–"
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
