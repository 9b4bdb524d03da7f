"""HTML, SVG, markdown and charts from hostile code: what stays readable, and that nothing else stays."""

from __future__ import annotations

import io
import re
import time

import matplotlib as mpl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from sandbox_agent_magic.outputs import OutputCollector, clean_bundle, clean_html, clean_markdown, text_of
from sandbox_agent_magic.outputs.charts import ChartRefused, clean_chart
from sandbox_agent_magic.outputs.html import MAX_TAGS, TooManyTags, clean_style
from sandbox_agent_magic.outputs.svg import clean_svg
from sandbox_agent_magic.types import JSON
from tests.support import payloads
from tests.support.markup import harm

VEGALITE, PLOTLY = "application/vnd.vegalite.v5+json", "application/vnd.plotly.v1+json"

# ---- HTML -----------------------------------------------------------------------------------------------------------


def test_a_pandas_table_stays_as_it_is() -> None:
    html = clean_html(pd.DataFrame({"price": [1.5, 2.5]})._repr_html_())
    assert '<table border="1" class="dataframe">' in html
    assert "<td>2.5</td>" in html
    assert "<style" not in html


def test_a_stylers_colours_bars_and_caption_stay() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    style = frame.style.background_gradient(subset=["a"]).bar(subset=["b"], color="#d65f5f").set_caption("Prices")
    style = style.set_table_styles([{"selector": "th", "props": [("text-align", "left"), ("position", "fixed")]}])
    html = clean_html(style.to_html())
    assert re.search(r'<td style="background-color: #[0-9a-f]{6}; color: #[0-9a-f]{6}">1</td>', html)
    assert re.search(r"<td style=\"[^\"]*linear-gradient\(90deg, *#d65f5f", html)
    assert "<caption>Prices</caption>" in html
    assert "text-align: left" in html
    assert harm(html) == []


@pytest.mark.parametrize("name", payloads.HTML)
def test_hostile_html_is_disarmed(name: str) -> None:
    assert harm(clean_html(f"<p>before</p>{payloads.HTML[name]}")) == []


@pytest.mark.parametrize(
    "style",
    ["color: url(x)", "width: 99999px", "position: fixed", "background: linear-gradient(9deg, url(x))", "color: r\\65d",
     "width: expression(alert(1))", "color: red/**/", "margin: -100px", "border: 1px solid url(x)", "--x: red"],
)  # fmt: skip
def test_a_style_keeps_plain_values_of_listed_properties_only(style: str) -> None:
    assert clean_style(f"{style}; font-weight: bold") == "font-weight: bold"


def test_pictures_may_stand_in_the_page_itself_only() -> None:
    inside = '<img src="data:image/png;base64,iVBORw0KGgo=" width="10">'
    assert clean_html(inside) == '<img src="data:image/png;base64,iVBORw0KGgo=" width="10">'
    assert "src" not in clean_html('<img src="data:image/svg+xml;base64,PHN2Zy8+">')


@pytest.mark.parametrize(
    "html",
    ["<div>" * 50_000, "<b title=1>" * 25_000 + "<p>" * 25_000, "<!--" * 50_000, '<a "' * 50_000, "&" * 50_000,
     "<div><table><td></div></table>" * 10_000, "<style>" + "a{" * 1_000_000, "<p " + "a=1 " * 500_000,
     "<style>" + "b i{color:red}" * 50_000 + "</style>" + "<p><b><i></i></b></p>" * 5_000],
)  # fmt: skip
def test_a_page_made_to_be_slow_is_quick(html: str) -> None:
    started = time.monotonic()
    clean_html(html)
    assert time.monotonic() - started < 10  # unbounded, some of these take hours


def test_a_page_with_too_many_tags_is_refused_and_its_text_stays() -> None:
    with pytest.raises(TooManyTags):
        clean_html("<b>" * (MAX_TAGS + 1))
    dropped: list[str] = []
    assert clean_bundle({"text/html": "<b>" * (MAX_TAGS + 1), "text/plain": "x"}, dropped) == {"text/plain": "x"}
    assert dropped == ["text/html with too many tags"]


PIECES = st.lists(
    st.sampled_from([*payloads.HTML.values(), *"<>\"'=/&;- \n", "<table>", "</td>", "<b", "style=", "</p>", "<svg>",
                     "<!--", "-->", "<style>", "</style>", "#a{", "}", "color:", "url(", "<p id=a ", "&#60;", "<math>"])
    | st.text(max_size=5),
    max_size=12,
).map("".join)  # fmt: skip


@given(PIECES)
@settings(max_examples=400, deadline=None)
def test_no_html_at_all_gets_through_with_anything_harmful(html: str) -> None:
    once = clean_html(html)
    assert harm(once) == []
    assert harm(clean_html(once)) == []


# ---- SVG ------------------------------------------------------------------------------------------------------------


def test_a_plot_of_matplotlib_stays_a_plot() -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 3, 2], color="#ff0000")
    axes.set_title("Rain")
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    drawing = clean_svg(file.getvalue())
    assert drawing is not None
    assert "stroke: #ff0000" in drawing
    assert ">Rain</text>" in drawing
    assert re.search(r'<use href="#s[0-9a-f]+-\d+"', drawing)
    assert re.search(r'clip-path="url\(#s[0-9a-f]+-\d+\)"', drawing)
    assert harm(drawing) == []


@pytest.mark.parametrize("name", payloads.SVG)
def test_hostile_svg_is_disarmed(name: str) -> None:
    drawing = clean_svg(payloads.svg('<rect id="a" width="1"/>' + payloads.SVG[name]))
    assert drawing is not None
    assert "<rect" in drawing
    assert harm(drawing) == []


@pytest.mark.parametrize("name", payloads.SVG_DOCUMENTS)
def test_a_hostile_svg_document_is_disarmed_or_dropped(name: str) -> None:
    assert harm(clean_svg(payloads.SVG_DOCUMENTS[name]) or "") == []


def test_a_repeated_shape_cannot_repeat_others() -> None:
    levels = "".join(f'<g id="l{i}"><use href="#l{i + 1}"/><use href="#l{i + 1}"/></g>' for i in range(30))
    drawing = clean_svg(payloads.svg(f'{levels}<path id="l30" d="M 0 0"/>'))
    assert drawing is not None
    assert drawing.count("href") == 2


def test_a_drawing_that_cannot_be_shown_is_dropped_and_named() -> None:
    collector = OutputCollector(lambda _: None)
    collector.add({"output_type": "display_data", "data": {"image/svg+xml": "<svg", "text/plain": "x"}, "metadata": {}})
    assert "image/svg+xml that cannot be shown safely" in text_of(collector.finish())


SVG_PIECES = st.lists(st.sampled_from(list(payloads.SVG.values())) | st.text(max_size=5), max_size=8).map("".join)


@given(SVG_PIECES)
@settings(max_examples=200, deadline=None)
def test_no_svg_at_all_gets_through_with_anything_harmful(inner: str) -> None:
    assert harm(clean_svg(payloads.svg(inner)) or "") == []


# ---- markdown -------------------------------------------------------------------------------------------------------

HARMFUL_HTML = re.compile(r"<(script|img|iframe|a |svg|style|object)|jp-Mermaid", re.IGNORECASE)


def in_commonmark(text: str) -> str:
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def in_nbconvert(text: str) -> str:
    from nbconvert.filters import markdown2html

    return str(markdown2html(text))


@pytest.mark.parametrize("render", [in_commonmark, in_nbconvert])
@pytest.mark.parametrize("name", payloads.MARKDOWN)
def test_hostile_markdown_is_text_in_two_dialects(name: str, render: object) -> None:
    html = render(clean_markdown(payloads.MARKDOWN[name]))  # type: ignore[operator]
    assert not HARMFUL_HTML.search(re.sub(r'<a class="anchor-link"[^>]*>', "", html)), html


@pytest.mark.parametrize("name", [name for name in payloads.MARKDOWN if name.startswith("a formula")])
def test_a_formula_that_reaches_for_the_page_shows_its_own_text(name: str) -> None:
    assert not re.search(
        r"\\(href|url|style|class|bbox|let|def|csname|unicode)", clean_markdown(payloads.MARKDOWN[name])
    )


def test_what_a_model_usually_writes_stays_readable() -> None:
    text = "# Result\n\nThe mean is **4.2**, $\\frac{a}{b} < c$; see `x[0]`.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    text += "\n```python\nx = 1\n```"
    assert clean_markdown(text) == text


def test_a_link_shows_its_target() -> None:
    assert in_commonmark(clean_markdown("[the data](https://example.org/a)")) == (
        "<p>[the data] (https://example.org/a)</p>\n"
    )


@given(
    st.lists(st.sampled_from([*payloads.MARKDOWN.values(), *"`~<>[]()!:\\$\n *_-"]) | st.text(max_size=4)).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_no_markdown_at_all_gets_through_with_tags_links_or_pictures(text: str) -> None:
    assert not HARMFUL_HTML.search(in_commonmark(clean_markdown(text)))


# ---- charts ---------------------------------------------------------------------------------------------------------


def test_a_vega_lite_chart_with_its_own_data_stays() -> None:
    chart: dict[str, JSON] = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.20.1.json",
        "config": {"view": {"continuousWidth": 300, "continuousHeight": 300}},
        "data": {"name": "data-1"},
        "datasets": {"data-1": [{"url": "a", "n": 1}]},
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {"x": {"field": "url", "type": "nominal"}, "y": {"field": "n", "type": "quantitative"}},
        "transform": [{"filter": "datum.n > 0 && isValid(datum['url'])"}],
    }
    dropped: list[str] = []
    assert clean_chart(VEGALITE, chart, dropped) == chart
    assert dropped == []


@pytest.mark.parametrize(
    "part",
    [{"data": {"url": payloads.ADDRESS}}, {"encoding": {"href": {"value": "javascript:x"}}},
     {"usermeta": {"embedOptions": {"loader": {"baseURL": payloads.ADDRESS}}}}, {"$schema": payloads.ADDRESS},
     {"transform": [{"lookup": "a", "from": {"data": {"url": payloads.ADDRESS}}}]},
     {"config": {"background": payloads.ADDRESS}}, {"params": [{"name": "p", "bind": {"element": payloads.ADDRESS}}]},
     {"layer": [{"mark": "geoshape", "data": {"url": payloads.ADDRESS, "format": {"type": "topojson"}}}]}],
)  # fmt: skip
def test_a_vega_lite_chart_loses_what_loads_and_leads(part: dict[str, JSON]) -> None:
    clean = clean_chart(VEGALITE, {"mark": "bar", **part}, [])
    assert payloads.ADDRESS not in str(clean)
    assert "javascript" not in str(clean)


@pytest.mark.parametrize(
    "part",
    [{"mark": "image"}, {"mark": {"type": "image"}}, {"layer": [{"mark": {"type": "image"}}]},
     {"transform": [{"calculate": "warn.constructor('x')()", "as": "a"}]},
     {"transform": [{"filter": {"or": ["datum['constructor']"]}}]}, {"params": [{"name": "p", "expr": "event.view"}]},
     {"encoding": {"x": {"axis": {"labelExpr": "datum.label.constructor"}}}}],
)  # fmt: skip
def test_a_vega_lite_chart_with_pictures_or_strange_expressions_is_refused(part: dict[str, JSON]) -> None:
    with pytest.raises(ChartRefused):
        clean_chart(VEGALITE, {"mark": "bar", **part}, [])


def test_a_tooltip_that_would_load_a_picture_is_removed() -> None:
    chart: dict[str, JSON] = {
        "mark": {"type": "bar", "tooltip": True},
        "data": {"values": [{"image": payloads.ADDRESS}]},
    }
    assert "tooltip" not in str(clean_chart(VEGALITE, chart, []))


def test_a_plotly_chart_stays_and_loses_what_loads_and_leads() -> None:
    chart: dict[str, JSON] = {
        "data": [{"type": "bar", "x": ["a"], "y": [1], "text": [f'<a href="{payloads.ADDRESS}">x</a> <b>y</b>']}],
        "layout": {
            "title": {"text": f'Rain <span style="fill:url({payloads.ADDRESS})">x</span>'},
            "images": [{"source": payloads.ADDRESS}],
            "template": {"layout": {"images": [{"source": payloads.ADDRESS}], "images[0].source": payloads.ADDRESS}},
            "updatemenus": [{"buttons": [{"args": ["images[0].source", payloads.ADDRESS]}]}],
        },
        "config": {"plotlyServerURL": payloads.ADDRESS},
    }
    clean = clean_chart(PLOTLY, chart, [])
    assert isinstance(clean, dict)
    assert clean["data"] == [{"type": "bar", "x": ["a"], "y": [1], "text": [clean_text_of(chart)]}]
    assert "<a" not in str(clean)
    assert "<span" not in str(clean)
    assert "source" not in str(clean)
    assert "config" not in clean


def clean_text_of(chart: dict[str, JSON]) -> str:
    return f'< a href="{payloads.ADDRESS}">x< /a> < b>y< /b>'


@pytest.mark.parametrize("kind", ["scattermapbox", "image", "choropleth", 3, None])
def test_a_plotly_chart_that_fetches_maps_or_pictures_is_refused(kind: JSON) -> None:
    with pytest.raises(ChartRefused):
        clean_chart(PLOTLY, {"data": [{"type": kind}]}, [])


@given(st.recursive(st.none() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["data", "url", "mark", "type", "layout", "values", "expr", "x"]),
                                      inner, max_size=4), max_leaves=20))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_json_at_all_makes_a_chart_raise_anything_else(chart: JSON) -> None:
    for kind in (VEGALITE, PLOTLY):
        try:
            clean = clean_chart(kind, chart, [])
        except ChartRefused:
            continue
        assert isinstance(clean, dict)


@pytest.mark.parametrize("markup", [*payloads.HTML.values(), *map(payloads.svg, payloads.SVG.values())])
def test_every_payload_is_harmful_before_it_is_cleaned(markup: str) -> None:
    """Otherwise the tests above would prove nothing."""
    assert harm(markup)
