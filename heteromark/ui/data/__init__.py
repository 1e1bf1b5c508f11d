"""What the pages show, read and computed."""
