#!/bin/sh
# The web terminal of index $1.
exec /usr/bin/python3 -I /usr/lib/gantry/terminal_server.py "$1" $((@TERMINAL_PORT@ + $1))
