# repository, folder of all worktrees, worktree, branch, branch to begin a new one from, now.
repo=$1 root=$2 path=$3 branch=$4 base=$5 now=$6
need_repository
lock 60

find_own
if [ -n "$own" ] && [ -f "$own/locked" ] && [ "$(cat "$own/locked")" = initializing ]; then
	# git holds this lock only while it makes a worktree: one that is left was cut short.
	rm -rf -- "$path" "$own"
	own=
fi
if [ -n "$own" ] && { is_worktree || { [ -d "$path" ] && ! is_empty && repair; }; }; then
	printf 'created no\n'
	exit 0
fi
if [ -e "$path" ] || [ -L "$path" ]; then
	if ! is_empty; then put_aside "$now"; fi
fi
if [ -n "$own" ] && [ -f "$own/locked" ]; then
	refuse locked "The worktree of '$branch' is locked; unlock it with git worktree unlock."
fi
if [ -d "$repo/worktrees" ]; then g --git-dir="$repo" worktree prune; fi

for entry in "$repo"/worktrees/*; do
	[ -f "$entry/HEAD" ] || continue
	head=
	IFS= read -r head <"$entry/HEAD" || true
	if [ "$head" = "ref: refs/heads/$branch" ] && [ "$entry" != "$own" ]; then
		refuse in_use "Branch '$branch' is already in use by another session."
	fi
done

has() {
	g --git-dir="$repo" rev-parse --verify --quiet "$1^{commit}" >/dev/null
}

check_out() {
	g --git-dir="$repo" worktree add --quiet "$path" "$branch" >&2 || return 1
	printf 'created yes\n'
	exit 0
}

begin() {
	g --git-dir="$repo" branch --quiet "$1" "$branch" "$2" >&2 || exit 1
	check_out || {
		# The branch was made a moment ago for nothing.
		if [ "$(g --git-dir="$repo" rev-parse "refs/heads/$branch")" = "$(g --git-dir="$repo" rev-parse "$2^{commit}")" ]; then
			g --git-dir="$repo" branch --quiet -D "$branch" >/dev/null 2>&1 || true
		fi
		exit 1
	}
}

if has "refs/heads/$branch"; then check_out || exit 1; fi

parent=$branch
while [ "${parent%/*}" != "$parent" ]; do
	parent=${parent%/*}
	if g --git-dir="$repo" show-ref --verify --quiet "refs/heads/$parent"; then
		refuse conflict "Branch '$branch' cannot be beside branch '$parent': git keeps one name as a folder of the other."
	fi
done
below=$(g --git-dir="$repo" for-each-ref --count=1 '--format=%(refname:lstrip=2)' "refs/heads/$branch/")
if [ -n "$below" ]; then
	refuse conflict "Branch '$branch' cannot be beside branch '$below': git keeps one name as a folder of the other."
fi

# A server that does not answer must not keep anybody from work that needs only what is here.
if ! has "refs/remotes/origin/$branch" || [ -z "$(find "$repo/FETCH_HEAD" -mmin -0.5 2>/dev/null)" ]; then
	timeout 30 git --git-dir="$repo" -c gc.auto=0 -c maintenance.auto=false -c core.hooksPath=/dev/null \
		fetch --quiet --prune --no-recurse-submodules origin </dev/null 9>&- || true
fi
if has "refs/remotes/origin/$branch"; then
	begin --track "refs/remotes/origin/$branch"
fi
for start in "refs/remotes/origin/$base" "refs/heads/$base" refs/remotes/origin/HEAD \
	refs/remotes/origin/main refs/remotes/origin/master refs/heads/main refs/heads/master; do
	if ! has "$start"; then continue; fi
	case $start in
	refs/remotes/origin/HEAD)
		start=$(g --git-dir="$repo" symbolic-ref refs/remotes/origin/HEAD)
		begin --track "$start"
		;;
	refs/remotes/*) begin --track "$start" ;;
	*) begin --no-track "$start" ;;
	esac
done
start=$(g --git-dir="$repo" for-each-ref --count=1 '--format=%(refname)' refs/remotes/origin/ refs/heads/)
case $start in
refs/remotes/*) begin --track "$start" ;;
refs/heads/*) begin --no-track "$start" ;;
esac

# The repository has no commit yet. Older gits make no worktree without one, so it begins on a
# commit that nothing refers to and is then pointed at the branch that is still to be born.
empty=$(g --git-dir="$repo" hash-object -w -t tree /dev/null)
commit=$(g --git-dir="$repo" commit-tree "$empty" -m 'No commit yet')
g --git-dir="$repo" worktree add --quiet --detach "$path" "$commit" >&2
g -C "$path" symbolic-ref HEAD "refs/heads/$branch"
printf 'created yes\n'
