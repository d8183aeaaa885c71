#!/bin/sh
# Shows the session with this name, making it when there is none.
exec tmux -u -S /run/gantry/tmux.sock -N new-session -A -s "$1" -c /root
