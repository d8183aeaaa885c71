#!/bin/bash
# A login shell of a session, with the container's own environment.
. /usr/lib/gantry/environment.bash
unset TMUX TMUX_PANE NOTIFY_SOCKET LISTEN_FDS LISTEN_PID INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID
cd "$HOME" || cd /
exec /bin/bash --login
