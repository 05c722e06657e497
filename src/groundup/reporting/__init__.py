"""Pages and fragments of HTML: plots as SVG drawn here, no script, no network, everything escaped."""
