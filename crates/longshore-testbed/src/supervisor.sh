# The parent of one server process. $1: its log; then the program and its arguments.
# Standard input is a pipe that only the testbed's process has open. It ends when that process
# does, however it ends, and then the whole process group goes, the server's own helpers included.
# The word `leave` lets the server stay. Either way, the shell collects the server, so that none is
# left as a zombie where nobody else would do it.
log=$1
shift
"$@" < /dev/null >> "$log" 2>&1 &
echo "$!"
word=
read -r word
[ "$word" = leave ] || kill -KILL 0
wait
