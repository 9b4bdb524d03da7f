"""The area in a real browser: its text is readable in JupyterLab's themes, and on any light or dark page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from sandbox_agent_magic.display.markup import finished, working
from sandbox_agent_magic.display.view import Attempt
from tests.support.browser import CHROMIUM, dom_after
from tests.support.run_events import FAILED, WORKED

pytestmark = [pytest.mark.integration, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")]

AREAS = {
    "working": working("3 s · running step 2", [FAILED, WORKED], "print(5)\n\n5", news=True),
    "finished": finished("Done in 3.0 s\nNo answer.", [Attempt("Retry 1 after 2.0 s.", "half"), FAILED, WORKED]),
}
THEMES = Path(sys.prefix) / "share" / "jupyter" / "lab" / "themes" / "@jupyterlab"
LAB_BODY = "background:var(--jp-layout-color0);color:var(--jp-content-font-color1)"
PAGES = {
    "JupyterLab, light": ("theme-light-extension", LAB_BODY),
    "JupyterLab, dark": ("theme-dark-extension", LAB_BODY),
    "a white page": ("", "background:#fff;color:#222"),
    "a black page": ("", "background:#111;color:#ddd"),
}
MEASURE = """
// A colour as the browser paints it, 0 to 255 and alpha 0 to 1.
const rgba = text => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
const luminance = colour => {
  const [r, g, b] = colour.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = element => {
  const own = rgba(getComputedStyle(element).backgroundColor);
  return element === document.body ? over(own, [255, 255, 255]) : over(own, background(element.parentElement));
};
const contrasts = [];
document.querySelectorAll('details').forEach(each => { each.open = true; });
const walker = document.createTreeWalker(document.querySelector('.sandbox-agent'), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  if (!walker.currentNode.data.trim()) continue;
  const element = walker.currentNode.parentElement, behind = background(element);
  const both = [over(rgba(getComputedStyle(element).color), behind), behind];
  const [low, high] = both.map(luminance).sort((a, b) => a - b);
  contrasts.push(((high + 0.05) / (low + 0.05)).toFixed(2));
}
document.body.dataset.contrasts = contrasts.join(' ');
document.body.dataset.wide = document.body.scrollWidth > window.innerWidth;
"""
"""Contrast of each piece of text with what is behind it, by WCAG 2.2's formula."""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("area", AREAS)
def test_every_word_stands_out_from_what_is_behind_it(page: str, area: str) -> None:
    theme, body = PAGES[page]
    style = (THEMES / theme / "index.css").read_text() if theme else ""
    html = (
        f"<!doctype html><meta charset=utf-8><style>{style}</style>"
        f'<body style="{body};width:500px">{AREAS[area]}<script>{MEASURE}</script></body>'
    )
    found = re.search(r'data-contrasts="([^"]+)" data-wide="([a-z]+)"', dom_after(html))
    assert found is not None
    contrasts = [float(number) for number in found[1].split()]
    assert len(contrasts) >= 6
    assert min(contrasts) >= 4.5, contrasts  # level AA
    assert found[2] == "false"
