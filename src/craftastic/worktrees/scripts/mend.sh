# repository, folder of all worktrees, worktree, branch, time. Makes the folder a worktree again, with
# the files that are in it; one that is gone, or is no folder, is left for the making of worktrees.
repo=$1 root=$2 path=$3 branch=$4 now=$5
need_repository
lock 60
name=$(printf '%s' "${path#"$root"/}" | tr / -)-$now
find_own

# An entry that git forgot, or that is damaged, begins at the branch that the folder is of.
make_entry() {
	for entry in "$repo"/worktrees/*; do
		[ -f "$entry/HEAD" ] || continue
		head=
		IFS= read -r head <"$entry/HEAD" || true
		if [ "$head" = "ref: refs/heads/$branch" ] && [ "$entry" != "$own" ]; then
			refuse in_use "Branch '$branch' is already in use by another session."
		fi
	done
	if [ -z "$own" ]; then
		own=$repo/worktrees/${path##*/}
		while [ -e "$own" ] || [ -L "$own" ]; do own=${own}1; done
		mkdir -p -- "$own"
		printf '%s\n' "$path/.git" >"$own/gitdir"
	fi
	printf '../..\n' >"$own/commondir"
	printf 'ref: refs/heads/%s\n' "$branch" >"$own/HEAD"
}

head_is_read() {
	[ -f "$own/HEAD" ] || return 1
	g --git-dir="$own" rev-parse --verify --quiet 'HEAD^{commit}' >/dev/null ||
		[ "$(g --git-dir="$own" symbolic-ref --quiet HEAD)" = "refs/heads/$branch" ]
}

if [ ! -e "$path" ] && [ ! -L "$path" ]; then
	if [ -n "$own" ] && [ -f "$own/locked" ]; then
		reason=$(head -c 200 "$own/locked" | head -n 1)
		rm -f -- "$own/locked"
		did "The worktree was locked${reason:+ (}$reason${reason:+)}; it is not any more."
	fi
	did 'The folder was gone: it is made again from its branch. Shells that stand in the old one need `cd "$PWD"`.'
	exit 0
fi
if [ ! -d "$path" ] || [ -L "$path" ]; then
	put_aside "$name"
	did "There was no folder in its place; what was there is kept in ~${aside#"$HOME"}."
	exit 0
fi
if is_empty; then
	did 'The folder was empty: it is made again from its branch.'
	exit 0
fi
if [ -z "$own" ]; then
	if ! g --git-dir="$repo" rev-parse --verify --quiet "refs/heads/$branch^{commit}" >/dev/null; then
		put_aside "$name"
		did "The repository does not have branch $branch any more; the folder is kept in ~${aside#"$HOME"}."
		exit 0
	fi
	make_entry
	did 'git had forgotten the worktree: it knows it again.'
fi
drop_locks "$own" "$repo/refs/heads" "$repo/packed-refs.lock" "$repo/config.lock" "$repo/HEAD.lock"
if ! head_is_read || [ ! -f "$own/commondir" ]; then
	make_entry
	did "The worktree's branch could not be read: it is on $branch again."
fi
if [ -L "$path/.git" ] || ! is_worktree; then
	link "$name"
	is_worktree || refuse repository_corrupt 'The worktree cannot be put right: the repository is damaged.'
	did 'The folder is a worktree again; its files are as they were.'
fi
if [ ! -f "$own/index" ] || ! GIT_OPTIONAL_LOCKS=0 timeout 60 git -C "$path" -c core.fsmonitor=false ls-files --stage >/dev/null 2>&1 </dev/null 9>&-; then
	if g -C "$path" rev-parse --verify --quiet 'HEAD^{commit}' >/dev/null; then
		if [ -e "$own/index" ] || [ -L "$own/index" ]; then mv -f -- "$own/index" "$own/index.damaged-$now"; fi
		g -C "$path" read-tree HEAD
		did 'What was staged could not be read: it is not staged any more. The files are as they were.'
	fi
fi
