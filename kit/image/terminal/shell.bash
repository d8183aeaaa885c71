#!/bin/bash
# A login shell of a session, with the container's own environment.
. /usr/lib/gantry/environment.bash
unset TMUX TMUX_PANE TERM_PROGRAM TERM_PROGRAM_VERSION
unset RUNTIME_DIRECTORY INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE
cd "$HOME" || cd /
exec /bin/bash --login
