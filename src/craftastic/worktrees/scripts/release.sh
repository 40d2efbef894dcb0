# repository, folder of all worktrees, worktree, branch, session, snapshot|whole, whether to remove
# only what this session made (yes or no).
# Removes the worktree. What is only in it is kept: as a commit refs/craftastic/kept/SESSION, or, where
# git cannot hold it, as the folder that it is.
repo=$1 root=$2 path=$3 branch=$4 name=$5 how=$6 only_own=$7
[ -d "$repo" ] || mkdir -p -- "$repo"
lock 60
made=no
if [ -e "$HOME/.craftastic/jobs/$name/made" ]; then made=yes; fi
# What only this session needed: the state of its jobs, and where its branch began.
rm -rf -- "$HOME/.craftastic/jobs/$name"
if sound; then g --git-dir="$repo" update-ref -d "refs/craftastic/start/$name" 2>/dev/null || true; fi
if [ "$only_own" = yes ] && [ "$made" = no ]; then exit 0; fi
if [ ! -e "$path" ] && [ ! -L "$path" ]; then
	if sound; then g --git-dir="$repo" worktree prune; fi
	drop_empty_parents
	exit 0
fi

find_own
if ! sound || [ -z "$own" ] || is_empty || ! { is_worktree || repair; }; then
	if is_empty; then
		rmdir -- "$path"
	else
		put_aside "$name"
		printf 'path %s\n' "$aside"
	fi
	if sound; then g --git-dir="$repo" worktree prune; fi
	drop_empty_parents
	exit 0
fi

# Where a commit cannot hold everything, the folder stays; the next session on the branch finds it.
leave() {
	printf 'path %s\n' "$path"
	exit 0
}

[ "$how" = snapshot ] || leave
[ ! -e "$own/rebase-merge/autostash" ] && [ ! -e "$own/rebase-apply/autostash" ] || leave

cd -- "$path"
head=$(g rev-parse --verify --quiet 'HEAD^{commit}' || true)
# A commit that cannot be read is not none: in a damaged repository the folder is all there is.
if [ -z "$head" ] && g rev-parse --verify --quiet HEAD >/dev/null; then leave; fi
index=$own/craftastic-index
trap 'rm -f -- "$own/craftastic-index" "$own/craftastic-index.lock"' EXIT
rm -f -- "$index" "$index.lock"
if [ -f "$own/index" ]; then cp -- "$own/index" "$index"; fi
export GIT_INDEX_FILE="$index"
staged=$(g write-tree 2>/dev/null || true)
if [ -z "$staged" ]; then
	# The index is unreadable or has conflicts; the files themselves are what counts.
	rm -f -- "$index"
	if [ -n "$head" ]; then g read-tree "$head" || leave; fi
fi
look_at_all || leave
g add --all -- . >/dev/null 2>&1 || leave
links=$(g ls-files --stage | sed -n 's/^160000 [0-9a-f]* 0	//p')
if [ -n "$links" ]; then
	# A repository inside this one: a commit would hold only its id.
	printf '%s\n' "$links" | while IFS= read -r link; do
		case $link in \"*) exit 1 ;; esac
		[ ! -e "$link/.git" ] || exit 1
	done || leave
fi
tree=$(g write-tree) || leave
if [ -n "$head" ]; then before=$(g rev-parse "$head^{tree}"); else before=$(g hash-object -t tree /dev/null); fi

commit=
unpushed=0
uncommitted=no
if [ -n "$head" ]; then unpushed=$(g rev-list --count "$head" --not --remotes) || leave; fi
if [ "$tree" != "$before" ] || { [ -n "$staged" ] && [ "$staged" != "$before" ]; }; then
	uncommitted=yes
	set --
	if [ -n "$head" ]; then set -- -p "$head"; fi
	if [ -n "$staged" ] && [ "$staged" != "$before" ] && [ "$staged" != "$tree" ]; then
		staged=$(g commit-tree "$staged" "$@" -m "Staged in the deleted session on $branch") || leave
		set -- "$@" -p "$staged"
	fi
	commit=$(g commit-tree "$tree" "$@" -m "Uncommitted work of the deleted session on $branch") || leave
elif [ "$unpushed" != 0 ]; then
	commit=$head
fi
if [ -n "$commit" ]; then
	g update-ref "refs/craftastic/kept/$name" "$commit" || leave
	printf 'ref refs/craftastic/kept/%s\ncommit %s\nuncommitted %s\nunpushed %s\n' \
		"$name" "$commit" "$uncommitted" "$unpushed"
fi
unset GIT_INDEX_FILE
cd -- "$root"
g --git-dir="$repo" worktree remove --force --force -- "$path" >&2 || rm -rf -- "$path"
g --git-dir="$repo" worktree prune
drop_empty_parents
