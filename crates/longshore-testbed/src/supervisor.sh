# The parent of one server process. $1: its log; then the program and its arguments.
# Standard input is a pipe that only the testbed's process has open. It ends when that process
# does, however it ends, and then the whole process group goes, the server's own helpers included.
# `gone`: the server has ended and is collected first, as nobody else may do it in a container.
# `leave`: the server stays, and is collected whenever it ends.
# Where the server is paused as that process ends, the kernel hangs up on the group, which must not
# end the shell before it has done its work. Caught, not ignored: the server would inherit that.
trap : HUP
log=$1
shift
"$@" < /dev/null >> "$log" 2>&1 &
server=$!
echo "$server"
word=
read -r word
[ -z "$word" ] || wait "$server"
[ "$word" = leave ] || kill -KILL 0
