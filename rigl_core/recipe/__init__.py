"""A recipe: everything that defines a sparse training, except the model. For users and authors of methods."""

from rigl_core.recipe.recipe import Recipe

__all__ = ["Recipe"]
