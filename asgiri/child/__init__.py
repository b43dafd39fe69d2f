"""What every child of the master does for its process, whatever it is there for."""
