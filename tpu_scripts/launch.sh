#!/usr/bin/env bash
# Starts RUN_COMMAND on all hosts, detached: it goes on when you log out. A run that exists is continued.
#
#     ./launch.sh           start; refused while one runs on any host
#     ./launch.sh --stop    SIGTERM to all hosts: the program saves and ends
#
# Each host writes ~/lesa_jax_train.log: see logs.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

stop=0
if [[ ${1:-} == --stop ]]; then
    stop=1
    shift
fi
no_more_arguments "$@"
load_config PROJECT ZONE TPU_NAME ACCELERATOR_TYPE RUN_DIR RUN_COMMAND

# The program holds the lock for as long as it lives, so that no pid of an earlier boot can mislead.
free="flock --nonblock $LOCK true"
if ((stop)); then
    on_all_hosts "$free && echo 'nothing runs here' || kill -TERM \"\$(cat $PID)\""
    exit
fi

on_all_hosts "$free || { echo 'already running here'; exit 9; }" ||
    fail 1 "not started: a run goes on, or a host does not answer; ./logs.sh shows it, ./launch.sh --stop ends it"

arguments=("${RUN_COMMAND[@]}" --output "$RUN_DIR")
if several_hosts; then arguments+=(--distributed); fi
# \$! stays the program's own: setsid, nohup, flock and env replace themselves by what they start.
on_all_hosts "export PATH=\"\$HOME/lesa_jax_env/bin:\$PATH\"
setsid nohup flock --no-fork --nonblock $LOCK $(quoted "${arguments[@]}") >>$LOG 2>&1 </dev/null &
echo \$! >$PID
sleep 3
if kill -0 \$! 2>/dev/null; then echo 'started'; else wait \$! || { tail -n 20 $LOG; exit 1; }; fi"
