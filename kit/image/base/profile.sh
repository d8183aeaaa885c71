# Login shells see the environment that the container was started with.
if [ -n "${BASH_VERSION-}" ] && [ -r /proc/1/environ ]; then
    . /usr/lib/gantry/environment.bash
fi
