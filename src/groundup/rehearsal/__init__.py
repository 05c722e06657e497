"""The dress rehearsal: the real server, real requests, real signals, measured from outside over 127.0.0.1."""
