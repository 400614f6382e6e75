"""Sphinx reads this: `make docs` builds the site into site/, where every warning is an error.

The source folder is the repository, so that links hold on the site as they do in it, and no file is copied.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from compressor.version import __version__  # noqa: E402

project = "compressor"
author = "The compressor authors"
copyright = author
version = release = __version__

root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "examples/README.md",
    "examples/recipes/README.md",
    "examples/recipes/results/*.md",
]
exclude_patterns = [".*", "build", "dist", "out", "site"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "docs_site"]

source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # written tables begin with a heading of the third level

autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "compressor"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_extra_path = ["start"]  # a first page that leads to docs/index.html
pygments_style = "default"
pygments_dark_style = "monokai"
