#!/bin/bash
# Runs $2 in the directory $1, with the container's own environment and the variables NAME=VALUE that follow.
. /usr/lib/gantry/environment.bash
unset NOTIFY_SOCKET INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE
export HOME=/root USER=root LOGNAME=root SHELL=/bin/bash
cd -- "$1" || exit
command=$2
shift 2
exec env -- "$@" /bin/bash --login -c "$command"
