# folder of all worktrees, ff-only|rebase, name of a folder for the work, name, e-mail address, seconds.
# Works out what the worktree's branch becomes with its upstream; the worktree is not touched.
root=$1 mode=$2 work=$3 name=$4 email=$5 seconds=$6
need_worktree
make_scratch
if [ -e "$own/craftastic-pull" ]; then
	lock_worktree 30
	exec 9>&-
fi
head=$(g symbolic-ref --quiet HEAD) || refuse no_branch ''
running=$(operation)
if [ -n "$running" ] && [ "$running" != bisect ]; then refuse operation_running "$running"; fi
refuse_conflicts
branch=${head#refs/heads/}
upstream=$(g rev-parse --symbolic-full-name "$branch@{upstream}" 2>/dev/null) || upstream=
if [ -z "$upstream" ] || ! new=$(commit_at "$upstream"); then
	upstream=refs/remotes/origin/$branch
	new=$(commit_at "$upstream") || refuse no_upstream "$branch"
fi
field branch "$head"
field upstream "$upstream"
old=$(commit_at HEAD) || old=
field before "$old"
if [ -z "$old" ]; then
	field commits "$(g rev-list --count "$new" --)"
	field after "$new"
	exit 0
fi
set -- $(g rev-list --left-right --count "$old...$new" --)
ahead=$1 behind=$2
field commits "$behind"
if [ "$behind" = 0 ]; then
	field after "$old"
	exit 0
fi
if [ "$ahead" = 0 ]; then
	field after "$new"
	exit 0
fi
field ahead "$ahead"
[ "$mode" = rebase ] || refuse pull_diverged ''

# In a working tree of its own that holds no files, so that the person's stays as it is whatever
# happens. What an earlier one left behind when it was cut short goes first.
mkdir -p -- "$root/.pull"
find "$root/.pull" -mindepth 1 -maxdepth 1 -mmin +30 -exec sh -c '
	git --git-dir="$1" worktree remove --force --force "$2" 2>/dev/null || rm -rf -- "$2"' sh "$repo" {} \; || true
spot=$root/.pull/$work
trap 'g --git-dir="$repo" worktree remove --force --force "$spot" >/dev/null 2>&1 || rm -rf -- "$spot"; rm -rf -- "$scratch"; rmdir -- "$root/.pull" 2>/dev/null || true' EXIT
g --git-dir="$repo" worktree add --quiet --detach --no-checkout "$spot" "$old" >&2
hidden=$(g -C "$spot" rev-parse --absolute-git-dir)
mkdir -p -- "$hidden/info"
printf '/craftastic-none\n' >"$hidden/info/sparse-checkout"
export GIT_COMMITTER_NAME="$name" GIT_COMMITTER_EMAIL="$email"
unset GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL
apart() {
	timeout -k 3 "$seconds" git -C "$spot" -c core.fsmonitor=false -c core.hooksPath=/dev/null \
		-c gc.auto=0 -c maintenance.auto=false -c core.sparseCheckout=true -c core.sparseCheckoutCone=false \
		-c index.sparse=false -c advice.detachedHead=false -c rerere.enabled=false -c rebase.autoStash=false \
		-c rebase.autoSquash=false -c rebase.updateRefs=false -c rebase.forkPoint=false -c rebase.backend=merge \
		-c rebase.rebaseMerges=false -c rebase.abbreviateCommands=false -c rebase.missingCommitsCheck=ignore \
		-c user.useConfigOnly=false -c sequence.editor=: "$@" </dev/null 3>&- 4>&-
}
apart read-tree -m -u "$old" >"$scratch/said" 2>&1
status=0
apart rebase --quiet "$new" >"$scratch/said" 2>&1 || status=$?
if [ "$status" != 0 ]; then
	if [ "$status" = 124 ] || [ "$status" = 137 ]; then refuse too_long ''; fi
	if [ -n "$(apart ls-files --unmerged | head -c 1)" ]; then
		part conflicts 1000000 apart diff --name-only --diff-filter=U -z
		refuse pull_conflict ''
	fi
	part_end said 8000 "$scratch/said"
	refuse rebase_failed ''
fi
field after "$(g -C "$spot" rev-parse --verify "HEAD^{commit}")"
