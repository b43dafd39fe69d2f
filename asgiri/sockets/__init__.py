"""Listening sockets: the addresses of the config, bound, inherited or passed on."""
