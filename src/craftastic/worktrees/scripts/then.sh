# For bash: how many words the first command has, its words, and the words of another. That one is run
# once the first has made or found a worktree that needs no preparing, and says how it ended.
count=$1
shift
answer=$("${@:1:count}" </dev/null) || {
	code=$?
	printf '%s\n' "$answer"
	exit "$code"
}
printf '%s\n' "$answer"
if [[ $'\n'$answer$'\n' == *$'\nfresh yes\n'* ]]; then exit 0; fi
shift "$count"
code=0
"$@" >&2 || code=$?
printf 'then %s\n' "$code"
