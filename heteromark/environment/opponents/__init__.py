"""Who plays the seats that do not learn."""
