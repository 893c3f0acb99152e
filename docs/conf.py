"""Sphinx configuration."""

project = "django_dynamo_failover"
author = "The django_dynamo_failover authors"
copyright = author
html_theme = "furo"
exclude_patterns = ["_build"]
nitpicky = True
