"""Outputs as plain dicts in nbformat's schema: cleaned (`clean`), collected (`collector`), read (`text`)."""

from .clean import ALLOWED_TYPES, CELLS_MIMETYPE, clean_bundle, clean_metadata, clean_text, strip_colours
from .collector import OutputCollector
from .html import clean_html
from .limits import OutputLimits, mib
from .markdown import clean_markdown
from .text import cap_text, error_text, images_of, text_of

__all__ = [
    "ALLOWED_TYPES",
    "CELLS_MIMETYPE",
    "OutputCollector",
    "OutputLimits",
    "cap_text",
    "clean_bundle",
    "clean_html",
    "clean_markdown",
    "clean_metadata",
    "clean_text",
    "error_text",
    "images_of",
    "mib",
    "strip_colours",
    "text_of",
]
