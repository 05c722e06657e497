"""The one configuration, composed of the sections that the stages own."""

from groundup.recipe.recipe import Recipe, Step

__all__ = ["Recipe", "Step"]
