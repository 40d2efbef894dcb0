# Begins every script here, after the beginning of the worktrees' own scripts. The first arguments: a
# word that no output contains, the repository, the worktree, seconds that looking may take in all.
mark=$1 repo=$2 path=$3 until=$(($(date +%s) + $4))
shift 4
export GIT_OPTIONAL_LOCKS=0 GIT_LITERAL_PATHSPECS=1
trap 'exit 143' HUP INT PIPE TERM

# git that only looks: it runs no hook, monitor, external diff or pager, and ends in time with 124.
# Filters run: without them files of Git LFS would count as changed. What a repository's own
# configuration could change in the form of an answer is set here.
look() {
	left=$((until - $(date +%s)))
	[ "$left" -gt 0 ] || return 124
	timeout -k 1 "$left" git -c core.fsmonitor=false -c core.hooksPath=/dev/null \
		-c gc.auto=0 -c maintenance.auto=false -c core.quotePath=true -c core.bigFileThreshold=32m -c core.abbrev=auto \
		-c color.ui=false -c color.diff=false -c color.status=false \
		-c diff.noprefix=false -c diff.mnemonicPrefix=false -c diff.relative=false \
		-c diff.renames=true -c diff.algorithm=default -c diff.submodule=short -c diff.context=3 \
		-c diff.interHunkContext=0 -c diff.orderFile=/dev/null -c diff.wsErrorHighlight=none \
		-c diff.colorMoved=no -c diff.autoRefreshIndex=true -c diff.suppressBlankEmpty=false \
		-c status.renames=true -c status.relativePaths=false -c status.submoduleSummary=false \
		-c status.showStash=false -c log.showSignature=false -c log.date=default -c log.mailmap=false \
		-c format.pretty=medium -c core.splitIndex=false -c core.untrackedCache=false "$@" </dev/null
}

# name, most bytes, command…: prints a part of the answer and how its command ended.
part() {
	printf '%s %s\n' "$mark" "$1"
	part_most=$2
	shift 2
	ended=$({ { status=0; "$@" 3>&- 4>&- || status=$?; printf '%s' "$status" >&3; } | head -c "$part_most" >&4; } 3>&1)
	printf '\n%s = %s\n' "$mark" "$ended"
}
exec 4>&1

# file, most bytes, command…: keeps a command's output; `ended` tells how it ended.
kept() {
	kept_in=$1 kept_most=$2
	shift 2
	ended=$({ { status=0; "$@" 3>&- 4>&- || status=$?; printf '%s' "$status" >&3; } | head -c "$kept_most" >"$kept_in"; } 3>&1)
}

# A line of the answer that is no part: a name and a value without a newline.
field() {
	printf '%s - %s %s\n' "$mark" "$1" "$2"
}

need_worktree() {
	need_repository
	find_own
	[ -n "$own" ] && is_worktree || refuse worktree_missing ''
	cd -- "$path"
}

# Commits, pushes and pulls of one worktree wait for each other.
lock_worktree() {
	exec 9>>"$own/craftastic.lock"
	flock -w "$1" 9 || refuse busy ''
}

# Whoever else writes the index (a person, an editor) is done in a moment, or was cut short.
wait_for_index() {
	tries=15
	while [ -e "$own/index.lock" ]; do
		[ "$tries" -gt 0 ] || refuse git_locked "$own/index.lock"
		tries=$((tries - 1))
		sleep 0.2
	done
}

scratch=
make_scratch() {
	scratch=$(mktemp -d "${TMPDIR:-/tmp}/craftastic-git.XXXXXXXX")
	trap 'rm -rf -- "$scratch"' EXIT
}

# What somebody has begun in the worktree and not ended.
operation() {
	if [ -d "$own/rebase-merge" ] || [ -d "$own/rebase-apply" ]; then
		echo rebase
	elif [ -f "$own/MERGE_HEAD" ]; then
		echo merge
	elif [ -f "$own/CHERRY_PICK_HEAD" ]; then
		echo cherry-pick
	elif [ -f "$own/REVERT_HEAD" ]; then
		echo revert
	elif [ -f "$own/BISECT_LOG" ]; then
		echo bisect
	fi
}

commit_at() {
	g rev-parse --verify --quiet "$1^{commit}"
}

# Sets `commit` to what a branch, a remote's branch, a tag or the beginning of a hash stands for.
resolve() {
	for one in "refs/heads/$1" "refs/remotes/origin/$1" "refs/remotes/$1" "refs/tags/$1"; do
		if commit=$(commit_at "$one"); then return; fi
	done
	case $1 in
	*[!0-9a-fA-F]*) ;;
	????*) if commit=$(commit_at "$1"); then return; fi ;;
	esac
	refuse ref_not_found "$1"
}

refuse_conflicts() {
	[ -n "$(g ls-files --unmerged | head -c 1)" ] || return 0
	part conflicts 1000000 g diff --name-only --diff-filter=U -z
	refuse merge_conflicts ''
}
