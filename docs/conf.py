"""Configuration of the documentation: `make docs`, or rosdoc2."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

from generate import write_reference  # noqa: E402

project = "emu_perception"
author = "emu_perception maintainers"
release = version = ElementTree.parse(DOCS.parent / "package.xml").findtext("version")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "emu_perception"
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# The pages build without these packages too, as rosdoc2 needs it.
autodoc_mock_imports = [
    name
    for name in ("torch", "torchvision", "timm", "safetensors", "openvino", "lightning", "cv2")
    if find_spec(name) is None
]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

write_reference(DOCS / "reference")
