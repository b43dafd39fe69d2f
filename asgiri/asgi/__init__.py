"""The ASGI side: scope, receive and send, once for all protocols. No sockets, no wire formats."""
