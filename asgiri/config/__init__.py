"""What the user asked for: the schema of the configuration, and the loading of it."""
