"""The documentation site: `python -m docs.build` makes its pages from the code, `make docs` the site from the pages."""
