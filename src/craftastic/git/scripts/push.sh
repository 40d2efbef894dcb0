# branch, commit that it must be at ('' for any), lease|plain, follow|leave, verify|no-verify, seconds,
# name of the setting that sends the push's id, the header with it.
branch=$1 expected=$2 force=$3 follow=$4 verify=$5 seconds=$6 setting=$7 header=$8
need_worktree
make_scratch
lock_worktree 30
commit=$(commit_at "refs/heads/$branch") || refuse branch_missing "$branch"
if [ -n "$expected" ] && [ "$expected" != "$commit" ]; then refuse branch_moved "$commit"; fi
field commit "$commit"
# Not the branch's own name: with push.autoSetupRemote git lets the branch follow what it was to be
# pushed to, also when the upstream fails.
from=heads/$branch^0
# Exactly this commit, whatever happens to the branch while hooks run.
if [ -n "$expected" ] || [ "$follow" = leave ]; then from=$commit; fi

set -- --porcelain --no-follow-tags --no-signed --recurse-submodules=no
if [ "$force" = lease ]; then
	set -- "$@" --force-with-lease="refs/heads/$branch:$(commit_at "refs/remotes/origin/$branch" || true)"
fi
if [ "$verify" = no-verify ]; then set -- "$@" --no-verify; fi
status=0
(
	export LC_ALL=C.UTF-8
	unset GIT_LITERAL_PATHSPECS GIT_OPTIONAL_LOCKS
	export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="$setting" GIT_CONFIG_VALUE_0="$header"
	exec timeout -k 3 "$seconds" git -c core.fsmonitor=false -c gc.auto=0 -c maintenance.auto=false \
		-c push.pushOption= push "$@" -- origin "$from:refs/heads/$branch"
) >"$scratch/out" 2>"$scratch/err" </dev/null 3>&- 4>&- 9>&- || status=$?
field status "$status"
field after "$(commit_at "refs/heads/$branch" || true)"
if [ "$status" = 0 ] && [ "$follow" = follow ] && commit_at "refs/remotes/origin/$branch" >/dev/null; then
	g branch --quiet --set-upstream-to="origin/$branch" "$branch" >/dev/null 2>&1 || true
fi
part_end stdout 64000 "$scratch/out"
part_end stderr 64000 "$scratch/err"
