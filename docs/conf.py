"""How Sphinx builds the pages of tools/site.py (`./reproduce site`). Nothing is asked of other hosts."""

project = "Attention and robustness"
html_title = project
extensions = ["myst_nb", "sphinx-mathjax-offline"]
exclude_patterns = ["tests"]

nb_execution_mode = "off"  # the notebooks are shown as they were run
nb_render_markdown_format = "myst"
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_ipywidgets_js = {}  # which would come from another host
myst_enable_extensions = ["dollarmath", "attrs_block"]
myst_heading_anchors = 3

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_favicon = "static/icon.svg"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
