"""The admin child: tells whoever watches the service how it is, in a process and on a listener of its own.

All that it knows is on the scoreboard, so it answers when every worker is stuck. It never imports the application, and
whatever it is asked, it changes nothing.
"""
