# repository, folder of all worktrees, worktree, branch, branch to begin a new one from, now,
# session; what to begin the branch from instead (branch, commit, pull or nothing), which one, and
# whether the branch must not have begun elsewhere (yes or no).
repo=$1 root=$2 path=$3 branch=$4 base=$5 now=$6 session=$7 kind=$8 ref=$9 insist=${10}
jobs=$HOME/.craftastic/jobs/$session
# What this session began from: a repetition begins there again, wherever the base is by then.
pin=refs/craftastic/start/$session
need_repository
lock 60

has() {
	g --git-dir="$repo" rev-parse --verify --quiet "$1^{commit}" >/dev/null
}

id_of() {
	g --git-dir="$repo" rev-parse --verify --quiet "$1^{commit}"
}

# A new worktree is fresh until its session has prepared it, whatever is cut short in between. That
# the session made it is noted for good: a session that fails leaves alone what was there before.
fresh() {
	[ -n "$session" ] || return 0
	(umask 077 && mkdir -p -- "$jobs" && : >"$jobs/made" && : >"$jobs/fresh")
}

not_fresh() {
	[ -n "$session" ] || return 0
	rm -f -- "$jobs/fresh"
}

not_made() {
	[ -n "$session" ] || return 0
	rm -f -- "$jobs/fresh" "$jobs/made"
	rmdir -- "$jobs" 2>/dev/null || true
}

answer() {
	# git may have made its entry under another name than the one that it had before.
	find_own
	# Whoever is about to remove the worktree sees by this that a session was given it since.
	[ ! -d "$own" ] || : >"$own/craftastic-used"
	printf 'created %s\n' "$1"
	if [ -n "$kind" ] && has "$pin"; then printf 'start %s\n' "$(id_of "$pin")"; fi
	if [ -n "$session" ] && [ -e "$jobs/fresh" ]; then
		if [ -e "$path/.craftastic/config.toml" ] || [ -L "$path/.craftastic/config.toml" ] ||
			[ -e "$path/.worktreeinclude" ]; then
			printf 'fresh yes\n'
		else
			not_fresh
		fi
	fi
	exit 0
}

# A server that does not answer must not keep anybody from work that needs only what is here.
from_remote() {
	within=$1 command=$2
	shift 2
	timeout "$within" git --git-dir="$repo" -c gc.auto=0 -c maintenance.auto=false \
		-c core.hooksPath=/dev/null "$command" --quiet --no-recurse-submodules "$@" </dev/null 9>&-
}

fetched=
fetch() {
	[ -z "$fetched" ] || return 0
	if from_remote 30 fetch --prune origin; then fetched=yes; else fetched=failed; fi
}

# Nothing was found: because there is none, or because nobody could be asked?
absent() {
	[ "$fetched" != failed ] || refuse base_unreachable "$1 is not here yet, and the repository's server did not answer."
	refuse base_missing "$1 does not exist in this repository."
}

# Sets `start` to the commit that the branch begins at, and `upstream` to a branch to follow.
find_start() {
	upstream=
	if [ "$kind" = branch ] && has "refs/remotes/origin/$ref"; then upstream=origin/$ref; fi
	if has "$pin"; then
		start=$(id_of "$pin")
		return 0
	fi
	case $kind in
	branch) find_branch ;;
	commit) find_commit ;;
	pull) find_pull ;;
	*) refuse base_missing 'There is no such kind of base.' ;;
	esac
}

find_branch() {
	fetch
	if has "refs/remotes/origin/$ref"; then
		upstream=origin/$ref
		start=$(id_of "refs/remotes/origin/$ref")
		# Work of ours on top of the remote's belongs to the branch; where they parted, the remote's counts.
		if has "refs/heads/$ref" && g --git-dir="$repo" merge-base --is-ancestor "$start" "refs/heads/$ref"; then
			start=$(id_of "refs/heads/$ref")
		fi
	elif has "refs/heads/$ref"; then
		start=$(id_of "refs/heads/$ref")
	else
		absent "Branch '$ref'"
	fi
}

# Only ids count: a branch may be called like the beginning of one.
commits() {
	g --git-dir="$repo" rev-parse --disambiguate="$ref" 2>/dev/null | head -n 1000 >"$repo/craftastic.found"
	git --git-dir="$repo" cat-file '--batch-check=%(objecttype) %(objectname)' \
		<"$repo/craftastic.found" 2>/dev/null 9>&- | sed -n 's/^commit //p' | head -n 2
	rm -f -- "$repo/craftastic.found"
}

find_commit() {
	start=$(commits)
	if [ -z "$start" ]; then
		fetch
		start=$(commits)
	fi
	[ -n "$start" ] || absent "Commit '$ref'"
	case $start in
	*[!0-9a-f]*) refuse base_ambiguous "More than one commit begins with '$ref': give more of its id." ;;
	esac
}

# Kept beside the remote's branches: nothing in it is anybody's unpushed work.
find_pull() {
	here=refs/remotes/pull/$ref
	# GitHub's and Gitea's name of what is proposed, GitLab's, Bitbucket's.
	for there in "refs/pull/$ref/head" "refs/merge-requests/$ref/head" "refs/pull-requests/$ref/from"; do
		said=$(from_remote 120 fetch --no-tags --no-write-fetch-head origin "+$there:$here" 2>&1) && break
		case $said in
		*"couldn't find remote ref"*) fetched=yes ;;
		*)
			fetched=failed
			printf '%s\n' "$said" >&2
			break
			;;
		esac
	done
	has "$here" || absent "Pull request $ref"
	start=$(id_of "$here")
}

# The branch is there already. It is never moved: that it begins where it shall is all that helps.
begun() {
	[ -n "$kind" ] || return 0
	if [ "$insist" = yes ] && ! has "$pin"; then
		find_start
		[ "$(id_of "$1")" = "$start" ] ||
			refuse branch_exists "Branch '$branch' exists already, at another commit than the one asked for."
		g --git-dir="$repo" update-ref "$pin" "$start"
	fi
}

find_own
if [ -n "$own" ] && [ -f "$own/locked" ] && [ "$(cat "$own/locked")" = initializing ]; then
	# git holds this lock only while it makes a worktree: one that is left was cut short.
	rm -rf -- "$path" "$own"
	own=
fi
if [ -n "$own" ] && { is_worktree || { [ -d "$path" ] && ! is_empty && repair; }; }; then
	if has "refs/heads/$branch"; then begun "refs/heads/$branch"; fi
	answer no
fi
if has "refs/heads/$branch"; then begun "refs/heads/$branch"; fi
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

check_out() {
	fresh
	g --git-dir="$repo" worktree add --quiet "$path" "$branch" >&2 || {
		not_made
		return 1
	}
	answer yes
}

begin() {
	g --git-dir="$repo" branch --quiet "$1" "$branch" "$2" >&2 || exit 1
	if [ -n "${3:-}" ]; then g --git-dir="$repo" branch --quiet --set-upstream-to="$3" "$branch" >&2 || true; fi
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

if ! has "refs/remotes/origin/$branch" || [ -z "$(find "$repo/FETCH_HEAD" -mmin -0.5 2>/dev/null)" ]; then
	fetch
fi
if has "refs/remotes/origin/$branch"; then
	begun "refs/remotes/origin/$branch"
	begin --track "refs/remotes/origin/$branch"
fi
if [ -n "$kind" ]; then
	find_start
	g --git-dir="$repo" update-ref "$pin" "$start"
	begin --no-track "$start" "$upstream"
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
fresh
g --git-dir="$repo" worktree add --quiet --detach "$path" "$commit" >&2
g -C "$path" symbolic-ref HEAD "refs/heads/$branch"
answer yes
