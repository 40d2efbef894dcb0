# repository, seconds that git may look at every object. Prints `state`: whole, missing (nothing was
# ever there), damaged, or begun (a repair was cut short when the new clone was about to take its place).
repo=$1 seconds=$2
[ -d "$repo" ] || mkdir -p -- "$repo"
lock 60
new=$repo/craftastic-new
if [ -e "$new/craftastic-carried" ]; then
	printf 'state begun\n'
	exit 0
fi
# What a repetition finds put right already is told all the same.
[ -d "$new" ] || rm -rf -- "$repo/craftastic-repaired"
told=$repo/craftastic-repaired

answer() {
	printf 'state %s\n' "$1"
	exit 0
}

damaged() {
	did "$1"
	answer damaged
}

if [ ! -e "$repo/craftastic-cloned" ]; then
	if [ -z "$(find "$repo/refs/heads" "$repo/worktrees" "$repo/refs/stash" -type f -print -quit 2>/dev/null)" ] &&
		! grep -aq ' refs/heads/' "$repo/packed-refs" 2>/dev/null; then answer missing; fi
	damaged 'Parts of the repository were gone.'
fi
drop_locks "$repo"
sound || damaged 'git could not read the repository.'
status=0
timeout -k 5 "$seconds" nice git --git-dir="$repo" -c core.hooksPath=/dev/null fsck --full --no-reflogs \
	--no-dangling --no-progress >"$scratch/said" 2>&1 </dev/null 9>&- || status=$?
case $status in
# With 1 alone git only dislikes the form of an object, as old ones upstream may have it.
0 | 1) answer whole ;;
124 | 137) damaged 'The repository could not be read to its end in time.' ;;
*) damaged "git found damage: $(grep -aE '^(error|fatal|missing|broken)' "$scratch/said" | head -n 1 | cut -c 1-200)" ;;
esac
