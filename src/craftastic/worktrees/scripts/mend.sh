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

# A branch that is nowhere yet is well: it is to be born, as `git checkout --orphan` leaves it.
head_is_read() {
	[ -f "$own/HEAD" ] || return 1
	if g --git-dir="$own" rev-parse --verify --quiet 'HEAD^{commit}' >/dev/null; then return 0; fi
	symbolic=$(g --git-dir="$own" symbolic-ref --quiet HEAD) || return 1
	[ "$symbolic" != "refs/heads/$branch" ] || return 0
	case $symbolic in refs/heads/*) ;; *) return 1 ;; esac
	g check-ref-format "$symbolic" && [ ! -e "$repo/$symbolic" ] && [ ! -L "$repo/$symbolic" ] &&
		! sed -n 's/^[0-9a-f]* //p' "$repo/packed-refs" 2>/dev/null | grep -qxF -e "$symbolic"
}

# The folder is gone: with its entry, which goes too, what is staged and commits of no branch would be lost.
# They are kept as a commit, and where that cannot hold everything the entry is kept as well.
keep_entry() {
	if [ -z "$own" ]; then return 0; fi
	ref=refs/craftastic/kept/$name commit= whole=yes
	g check-ref-format "$ref" || ref=refs/craftastic/kept/worktree-$now
	head=$(g --git-dir="$own" rev-parse --verify --quiet 'HEAD^{commit}') || head=
	if g --git-dir="$own" symbolic-ref --quiet HEAD >/dev/null; then
		:
	elif [ -z "$head" ]; then
		whole=no
	else
		alone=$(g --git-dir="$repo" rev-list --max-count=1 "$head" --not --branches --remotes --tags \
			'--glob=refs/craftastic/*') || alone=$head
		if [ -n "$alone" ]; then commit=$head; fi
	fi
	if [ -f "$own/index" ]; then
		cp -- "$own/index" "$scratch/index"
		staged=$(export GIT_INDEX_FILE="$scratch/index" && g --git-dir="$own" write-tree 2>/dev/null) || { staged= whole=no; }
		if [ -n "$staged" ] && [ "$staged" != "$(before)" ]; then
			commit=$(g --git-dir="$repo" commit-tree "$staged" ${head:+-p "$head"} -m "Staged in the worktree of $branch, whose folder was gone")
		fi
	fi
	if [ -n "$commit" ]; then
		g --git-dir="$repo" update-ref "$ref" "$commit"
		did "What was staged, or committed on no branch, is kept as $ref."
	fi
	for one in rebase-merge rebase-apply MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD; do
		if [ -e "$own/$one" ]; then whole=no; fi
	done
	if [ "$whole" = no ] || [ ! -f "$own/HEAD" ]; then
		mkdir -p -- "$root/.kept"
		place=$root/.kept/$name.entry
		while [ -e "$place" ]; do place=$place.1; done
		cp -a -- "$own" "$place"
		did "What git knew of it is kept in ~${place#"$HOME"}."
	fi
}

# The tree of what is committed.
before() {
	if [ -n "$head" ]; then
		g --git-dir="$repo" rev-parse "$head^{tree}"
	else
		g --git-dir="$repo" hash-object -t tree /dev/null
	fi
}

if [ ! -d "$path" ] || [ -L "$path" ] || is_empty; then keep_entry; fi
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
if [ ! -f "$own/commondir" ]; then
	printf '../..\n' >"$own/commondir"
	did 'The worktree was not linked with the repository any more: it is again.'
fi
if ! head_is_read; then
	if [ -f "$own/HEAD" ]; then
		cp -a -- "$own/HEAD" "$own/HEAD.damaged-$now"
		did "What the worktree was on is kept in ~${own#"$HOME"}/HEAD.damaged-$now."
	fi
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
