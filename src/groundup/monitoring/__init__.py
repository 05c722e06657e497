"""Profiles of training data, drift of live traffic against them, the log of predictions.  No training library is imported here."""
