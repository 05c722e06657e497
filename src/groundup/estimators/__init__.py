"""Classical models with scikit-learn's API, one a file.  A file put here is in the catalogue; no list is edited."""
