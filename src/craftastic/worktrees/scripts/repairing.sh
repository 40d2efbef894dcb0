# Begins the scripts that look for damage and put it right, after the beginning of all scripts.
# Nothing that may be somebody's only copy is deleted by them: it is set aside, and they say where.

# What was done, a line for each thing: kept in the file `told`, or printed where there is none.
told=
did() {
	if [ -n "$told" ]; then printf '%s\n' "$1" >>"$told"; else printf 'did %s\n' "$1"; fi
}

scratch=$(mktemp -d "${TMPDIR:-/tmp}/craftastic-repair.XXXXXXXX")
trap 'rm -rf -- "$scratch"' EXIT

# Prints a git that runs in the sandbox, and can see the repository. This script has none in the
# background when it asks.
git_at_work() {
	for process in /proc/[0-9]*; do
		name=
		IFS= read -r name 2>/dev/null <"$process/comm" || continue
		case $name in git*) ;; *) continue ;; esac
		state=
		IFS= read -r state 2>/dev/null <"$process/stat" || continue
		case $state in *') Z '* | *') X '*) continue ;; esac
		if readlink "$process/root" >/dev/null 2>&1 && [ ! "$process/root$repo" -ef "$repo" ]; then continue; fi
		printf '%s' "${process#/proc/}"
		return
	done
}

is_open() {
	for handle in /proc/[0-9]*/fd/*; do
		if [ "$handle" -ef "$1" ]; then return 0; fi
	done
	return 1
}

# A lock is left over when no git runs at all, nobody has it open, and it is not of this moment: git
# closes the file of a lock that it still holds, for as long as a hook or an editor runs.
left_over() {
	tries=14
	while [ -z "$(find "$1" -maxdepth 0 -mmin +0.2 2>/dev/null)" ]; do
		[ -e "$1" ] || [ -L "$1" ] || return 1
		[ "$tries" -gt 0 ] || return 1
		tries=$((tries - 1))
		sleep 1
	done
	holder=$(git_at_work)
	[ -z "$holder" ] && ! is_open "$1"
}

# folders and files…: removes the locks among them that git commands have left behind.
drop_locks() {
	find "$@" \( -path "$repo/damaged-*" -o -path "$repo/craftastic-new" \) -prune -o \
		-name '*.lock' ! -name craftastic.lock ! -type d -print 2>/dev/null | head -n 200 >"$scratch/locks"
	while IFS= read -r one <&8; do
		short=${one#"$repo/"}
		holder=
		if left_over "$one"; then
			rm -f -- "$one"
			did "The lock $short, which a git command that was cut short had left, is removed."
		elif [ -n "$holder" ]; then
			did "The lock $short stays: process $holder is a git command that runs. End it, and repair again."
		elif [ -e "$one" ] || [ -L "$one" ]; then
			did "The lock $short stays: somebody has it open, or it is of this moment. Repair again later."
		fi
	done 8<"$scratch/locks"
}

# Links the worktree at `path` with its entry in the repository, whatever is in the place of its `.git`.
# What was there is set aside.
link() {
	if [ -e "$path/.git" ] || [ -L "$path/.git" ]; then
		if [ ! -f "$path/.git" ] || [ -L "$path/.git" ] ||
			[ "$(head -c 4096 "$path/.git" | tr -d '\0\n')" != "gitdir: $own" ]; then
			mkdir -p -- "$root/.kept"
			place=$root/.kept/$1.git
			while [ -e "$place" ] || [ -L "$place" ]; do place=$place.1; done
			mv -- "$path/.git" "$place"
			did "What was in the place of the worktree's .git is kept in ~${place#"$HOME"}."
		fi
	fi
	printf 'gitdir: %s\n' "$own" >"$path/.git"
}
