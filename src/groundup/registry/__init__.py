"""Which version of a model is the champion, since when, why, and by whom: plain files and one SQLite file, no MLflow needed.

from groundup.registry import Registry

registry = Registry(home)
registry.champion("digits")                          # 3
registry.resolve("models:/digits@champion")          # <home>/registry/digits/3/bundle
registry.rollback("digits")                          # the champion before it is champion again
"""

from groundup.registry.store import CHALLENGER, CHAMPION, Event, Registry, Version

__all__ = ["CHALLENGER", "CHAMPION", "Event", "Registry", "Version"]
