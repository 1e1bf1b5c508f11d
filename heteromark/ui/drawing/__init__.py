"""Charts, styles and HTML."""
