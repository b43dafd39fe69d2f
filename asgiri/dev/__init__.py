"""What is there under --reload only: the watcher, the zygote, the error page and the live reload."""
