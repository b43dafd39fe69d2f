"""The worker process: from the fork to the exit."""
