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

# name, most bytes, file: the end of a file as a part. A line that would be cut is left out: half a
# secret is not known for one.
part_end() {
	if [ "$(wc -c <"$3")" -gt "$2" ]; then
		part "$1" "$2" last_lines "$2" "$3"
	else
		part "$1" "$2" cat -- "$3"
	fi
}
last_lines() {
	tail -c "$1" "$2" | sed 1d
}

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
	# A branch that stands at a commit which cannot be read is no branch without one.
	commit_at HEAD >/dev/null 2>&1 || ! g rev-parse --verify --quiet HEAD >/dev/null 2>&1 || refuse repository_corrupt ''
}

# Commits, pushes and pulls of one worktree wait for each other. The first one after a pull that was
# cut short in its last step ends that step.
lock_worktree() {
	exec 9>>"$own/craftastic.lock"
	flock -w "$1" 9 || refuse busy ''
	if [ -e "$own/craftastic-pull" ]; then finish_pull; fi
}

# Files of the new commit stand under a branch at the old one: the branch follows, so that nobody takes
# them for changes of their own. Where somebody has gone on from there, or undone it, nothing moves.
finish_pull() {
	wait_for_index
	pulled_head='' pulled_from='' pulled_to=''
	{
		read -r pulled_head
		read -r pulled_from
		read -r pulled_to
	} <"$own/craftastic-pull" || true
	at=$(commit_at HEAD) || at=
	if [ -n "$pulled_to" ] && [ "$(g symbolic-ref --quiet HEAD)" = "$pulled_head" ] &&
		[ "${at:-$(g hash-object -t tree /dev/null)}" = "$pulled_from" ] &&
		(take_pulled "$pulled_from" "$pulled_to"); then
		g update-ref -m 'pull (finished)' "$pulled_head" "$pulled_to" "$at" >&2 || true
	fi
	rm -f -- "$own/craftastic-pull"
}

# Files that are the new commit's byte for byte go into the index as such, and git does the rest. Fails
# with the index as it was where there are none, or where somebody has changed what is to be written.
take_pulled() {
	unset GIT_OPTIONAL_LOCKS
	if [ -f "$own/index" ]; then
		cp -- "$own/index" "$scratch/index-before"
		cp -- "$own/index" "$scratch/index-new"
	fi
	(
		export GIT_INDEX_FILE="$scratch/index-new"
		g read-tree -i -m "$2" >&2 || exit 1
		g update-index -q --refresh >/dev/null 2>&1 || true
		g diff-files -z --name-only | sort -z >"$scratch/other"
	) || return 1
	g diff-tree -r -z --name-only --diff-filter=d "$1" "$2" | sort -z | comm -z -23 - "$scratch/other" |
		xargs -0 -r sh -c 'for one; do if [ -e "$one" ] || [ -L "$one" ]; then printf "%s\0" "$one"; fi; done' sh >"$scratch/written"
	gone=$(g diff-tree -r -z --name-only --diff-filter=D "$1" "$2" |
		xargs -0 -r sh -c 'for one; do [ -e "$one" ] || [ -L "$one" ] || echo gone; done' sh | head -n 1)
	[ -s "$scratch/written" ] || [ -n "$gone" ] || return 1
	if git -c core.fsmonitor=false update-index --add --replace -z --stdin <"$scratch/written" >&2 9>&- &&
		g read-tree -m -u "$1" "$2" >&2; then return 0; fi
	if [ -f "$scratch/index-before" ]; then mv -f -- "$scratch/index-before" "$own/index"; fi
	return 1
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
