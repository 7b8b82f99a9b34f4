"""A model as the core sees it: named layers and counts of their weights. Read this folder first."""
