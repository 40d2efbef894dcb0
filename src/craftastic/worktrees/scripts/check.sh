# repository, seconds that git may look at every object. Prints `state`: whole, missing (nothing was
# ever there), damaged, or begun (a repair was cut short when the new clone was about to take its place).
repo=$1 seconds=$2
[ -d "$repo" ] || mkdir -p -- "$repo"
lock 60
new=$repo/craftastic-new
if [ -s "$new/craftastic-carried" ] || [ -e "$new/craftastic-aside" ]; then
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

# why
unchecked() {
	refuse unchecked "The repository could not be looked through: $1. It was left as it is."
}

# status. Nothing is set aside because git had no time, was ended by a signal, or could not be started;
# but a pipe where git expects a file would keep it waiting each time.
need_end() {
	if [ "$1" -lt 124 ] || [ "$1" = 128 ]; then return 0; fi
	if [ "$1" != 124 ]; then unchecked 'git was ended before its end, as for want of memory'; fi
	if [ -n "$(pipes)" ]; then damaged 'Parts of the repository were no files.'; fi
	unchecked 'git was not done in time'
}

WANT='out of memory|cannot (allocate|fork)|mmap failed|unable to create|too many open|no space left'
DAMAGE='corrupt|inflate|missing|broken|mismatch|bad |garbage|truncated|invalid'

pipes() {
	find "$repo" \( -path "$repo/damaged-*" -o -path "$new" \) -prune -o \( -type p -o -type s \) -print -quit 2>/dev/null
}

if [ ! -e "$repo/craftastic-cloned" ]; then
	if [ -z "$(find "$repo/refs/heads" "$repo/worktrees" "$repo/refs/stash" -type f -print -quit 2>/dev/null)" ] &&
		! grep -aq ' refs/heads/' "$repo/packed-refs" 2>/dev/null; then answer missing; fi
	damaged 'Parts of the repository were gone.'
fi
drop_locks "$repo"
status=0
sound || status=$?
if [ "$status" != 0 ]; then
	need_end "$status"
	damaged 'git could not read the repository.'
fi
timeout -k 5 "$seconds" nice git --git-dir="$repo" -c core.hooksPath=/dev/null fsck --full --no-reflogs \
	--no-dangling --no-progress >"$scratch/said" 2>&1 </dev/null 9>&- || status=$?
need_end "$status"
if [ "$status" = 128 ] && grep -aqiE "$WANT" "$scratch/said" && ! grep -aqiE "$DAMAGE" "$scratch/said"; then
	unchecked "git said: $(grep -aiE "$WANT" "$scratch/said" | head -n 1 | cut -c 1-200)"
fi
case $status in
# With 1 alone git only dislikes the form of an object, as old ones upstream may have it.
0 | 1) answer whole ;;
*) damaged "git found damage: $(grep -aE '^(error|fatal|missing|broken)' "$scratch/said" | head -n 1 | cut -c 1-200)" ;;
esac
