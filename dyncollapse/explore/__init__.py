"""A local page with sliders: closed forms at once, flows within a second, SGD on request.

`page.py` is a marimo notebook of widgets and layout; what it shows comes from the pure functions of the other modules.
"""
