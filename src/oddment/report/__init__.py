"""One self-contained HTML page for one search, and the small pictures on it. Needs NumPy, Pillow and Jinja2 only."""

from oddment.report.explain import Explanations, explain
from oddment.report.gallery import Gallery
from oddment.report.html import ReportData, load_template, write_report
from oddment.report.listing import Listing
from oddment.report.pictures import Pictures, render_heat_map, render_pictures

__all__ = [
    "Explanations",
    "Gallery",
    "Listing",
    "Pictures",
    "ReportData",
    "explain",
    "load_template",
    "render_heat_map",
    "render_pictures",
    "write_report",
]
