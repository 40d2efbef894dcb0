# most bytes of the list, program that counts the lines of new files ('' for no counts at all).
most=$1 count=$2
need_worktree
make_scratch
kept "$scratch/status" "$most" look status --porcelain=v2 -z --branch --untracked-files=all \
	--ignored=no --find-renames --ahead-behind --ignore-submodules=dirty
listed=$ended
if [ "$listed" != 0 ] && [ "$listed" != 124 ] && [ "$listed" != 141 ]; then exit 1; fi
field operation "$(operation)"
printf '%s status\n' "$mark"
cat -- "$scratch/status"
printf '\n%s = %s\n' "$mark" "$listed"
[ -n "$count" ] || exit 0
if grep -azq '^[12u] ' "$scratch/status"; then
	base=$(commit_at HEAD) || base=$(g hash-object -t tree /dev/null)
	part counts "$most" look diff-index --numstat -z --find-renames --no-ext-diff --no-textconv \
		--ignore-submodules=dirty "$base" --
fi
if grep -azq '^? ' "$scratch/status"; then
	lines() {
		left=$((until - $(date +%s)))
		[ "$left" -gt 0 ] || return 124
		timeout -k 1 "$left" python3 -I -S -c "$count" <"$scratch/status"
	}
	part lines "$most" lines
fi
