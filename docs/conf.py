"""The site: Sphinx with furo reads the pages of this folder, and the reference from the package's docstrings.

sphinx-build -W --keep-going docs out/site

Nothing is fetched from other hosts, neither to build the site nor to read it: no inventories of other projects, no fonts, no
scripts. Formulas are text, and ``_static/formulas.woff`` has all their characters in one width, so that columns stay aligned.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import funcnet

project = "funcnet"
author = "The funcnet authors"
release = version = funcnet.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docs._ext.families",
    "docs._ext.formulas",
    "docs._ext.links",
]
exclude_patterns = ["_ext"]
smartquotes_action = "D"  # dashes only: a shape has "..." in it

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88
python_display_short_literal_types = True
add_module_names = False
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div.highlight-python pre, div.highlight-sh pre, div.highlight-bash pre, div.highlight-pycon pre"

html_theme = "furo"
html_title = f"funcnet {release}"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {
        "font-stack--monospace": '"Formulas", "DejaVu Sans Mono", ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace',
        "color-brand-primary": "#8a3b12",
        "color-brand-content": "#8a3b12",
    },
    "dark_css_variables": {"color-brand-primary": "#f0a070", "color-brand-content": "#f0a070"},
}
pygments_style = "friendly"
pygments_dark_style = "native"
