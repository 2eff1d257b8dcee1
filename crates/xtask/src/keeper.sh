# Keeps one private PostgreSQL: makes its data, runs it, and removes everything when xtask lets go.
#
#   sh keeper.sh BIN FOLDER LOCALE [ARGUMENT OF postgres ...]
#
# Standard input is a pipe that xtask holds open and never writes to. It ends when xtask lets go of it or
# dies in whatever way, kill -9 included; then the program that runs is stopped at once (the data goes
# anyway) and FOLDER is removed. When the server ends by itself, its exit status is left in FOLDER/ended.

bin=$1 folder=$2 locale=$3
shift 3
exec 3<&0 </dev/null

# Runs a program until it ends or xtask lets go; what it says goes to the log.
guarded() {
    "$@" 3<&- >>"$folder/log" 2>&1 &
    program=$!
    {
        read -r _ <&3
        # Again and again: a program that has only just begun does not listen yet.
        while kill -QUIT "$program"; do sleep 0.1; done
    } &
    watcher=$!
    wait "$program"
    status=$?
    kill "$watcher"
    wait "$watcher"
    return "$status"
}

guarded "$bin/initdb" --pgdata "$folder/data" --username postgres --auth trust \
    --encoding UTF8 --locale "$locale" --no-sync --no-instructions &&
    guarded "$bin/postgres" -D "$folder/data" "$@"
echo "$?" >"$folder/ended"
read -r _ <&3
rm -rf "$folder"
