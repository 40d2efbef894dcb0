# all|staged|files, amend|new, verify|no-verify, commit that the branch must be at ('' for any), name,
# e-mail address, seconds, bytes of the message, bytes of the names of new files. Standard input: the
# message, the new files to be taken, and the pathspecs of all files to be taken, each ended by NUL.
what=$1 amend=$2 verify=$3 expected=$4 name=$5 email=$6 seconds=$7 message_bytes=$8 new_bytes=$9
make_scratch
head -c "$message_bytes" >"$scratch/message"
head -c "$new_bytes" >"$scratch/new"
cat >"$scratch/names"
need_worktree
lock_worktree 30
before=$(commit_at HEAD) || before=
if [ -n "$expected" ] && [ "$expected" != "$before" ]; then refuse branch_moved "$before"; fi
if [ "$amend" = amend ] && [ -z "$before" ]; then refuse nothing_to_amend ''; fi
refuse_conflicts
running=$(operation)
if [ "$what" = files ] && [ -n "$running" ] && [ "$running" != bisect ]; then
	refuse operation_running "$running"
fi
if [ "$amend" = amend ] && [ "$running" = merge ]; then refuse operation_running "$running"; fi
wait_for_index

export GIT_AUTHOR_NAME="$name" GIT_AUTHOR_EMAIL="$email" GIT_COMMITTER_NAME="$name" GIT_COMMITTER_EMAIL="$email"
unset GIT_LITERAL_PATHSPECS GIT_OPTIONAL_LOCKS

# git takes files that it does not know into a commit only once they are noted; after a refusal they
# are unknown again.
if [ "$what" = all ]; then
	g ls-files --others --exclude-standard -z | grep -azv '/$' >"$scratch/new" || true
fi
forget() {
	[ -s "$scratch/new" ] || return 0
	(set +e; git -c core.fsmonitor=false update-index -z --force-remove --stdin <"$scratch/new" 2>/dev/null 9>&-)
	return 0
}
if [ -s "$scratch/new" ]; then
	trap 'forget; rm -rf -- "$scratch"' EXIT
	g --literal-pathspecs add --intent-to-add --pathspec-from-file="$scratch/new" --pathspec-file-nul >&2 || {
		if [ -e "$own/index.lock" ]; then refuse git_locked "$own/index.lock"; fi
		exit 1
	}
fi

set -- --quiet --cleanup=verbatim --file="$scratch/message" --no-status
if [ "$what" = all ]; then set -- "$@" --all; fi
if [ "$what" = files ]; then set -- "$@" --only --pathspec-from-file="$scratch/names" --pathspec-file-nul; fi
if [ "$amend" = amend ]; then set -- "$@" --amend; fi
if [ "$verify" = no-verify ]; then set -- "$@" --no-verify; fi
if [ "$amend" = new ] && [ "$running" != merge ]; then
	status=0
	g commit --dry-run --short "$@" >/dev/null 2>"$scratch/said" || status=$?
	if [ "$status" != 0 ]; then
		if [ -e "$own/index.lock" ]; then refuse git_locked "$own/index.lock"; fi
		# With 1 and no error git means that there is nothing; filters and warnings may print as well.
		if [ "$status" = 1 ] && ! grep -aqE '^(error|fatal): ' "$scratch/said"; then refuse nothing_to_commit ''; fi
		part_end said 8000 "$scratch/said"
		refuse git_failed ''
	fi
fi

# The repository's own hooks run, as they would for a person; what they print goes to a file, since
# one that leaves something running would hold a pipe open.
status=0
LC_ALL=C.UTF-8 timeout -k 3 "$seconds" git -c core.fsmonitor=false -c gc.auto=0 -c maintenance.auto=false \
	commit "$@" >"$scratch/said" 2>&1 </dev/null 3>&- 4>&- 9>&- || status=$?
if [ "$status" != 0 ]; then
	part_end said 8000 "$scratch/said"
	if [ "$status" = 124 ] || [ "$status" = 137 ]; then refuse too_long ''; fi
	left=$(sed -n "s/.*[Uu]nable to create '\(.*\.lock\)': File exists.*/\1/p" "$scratch/said" | head -n 1)
	if [ -n "$left" ]; then refuse git_locked "$left"; fi
	refuse commit_refused ''
fi
trap 'rm -rf -- "$scratch"' EXIT
after=$(commit_at HEAD)
field commit "$after"
field branch "$(g symbolic-ref --quiet HEAD || true)"
if parent=$(commit_at HEAD^1); then
	part counts 1000 g diff-tree --shortstat --find-renames "$parent" "$after"
else
	part counts 1000 g diff-tree --root --no-commit-id --shortstat "$after"
fi
part subject 66000 g log -1 --no-show-signature --encoding=UTF-8 --format=%B "$after" --
