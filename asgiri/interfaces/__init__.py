"""What kind of application it is, and how the server, which speaks ASGI 3 alone, serves the others."""
