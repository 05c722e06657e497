"""Networks: one architecture a file, each from its paper.  A file put here is in the catalogue; no list is edited."""
