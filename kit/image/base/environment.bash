# Exports what the container was started with: its init has it, its services do not.
while IFS= read -r -d '' pair; do
    case ${pair%%=*} in
        PATH | HOME | TERM | PWD | SHLVL | container | container_*) ;;
        [a-zA-Z_]*) export "$pair" ;;
    esac
done < /proc/1/environ 2>/dev/null
unset pair
