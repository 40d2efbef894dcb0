# branch's ref, commit that it is at ('' for none yet), commit to move it to, the mode. Moves branch, index
# and files together, or nothing: git looks at every file before it writes the first one.
head=$1 old=$2 new=$3 mode=$4
need_worktree
make_scratch
lock_worktree 30
if [ "$(g symbolic-ref --quiet HEAD)" != "$head" ]; then refuse branch_moved ''; fi
now=$(commit_at HEAD) || now=
if [ "$now" != "$old" ]; then refuse branch_moved "$now"; fi
refuse_conflicts
wait_for_index
unset GIT_OPTIONAL_LOCKS
from=${old:-$(g hash-object -w -t tree /dev/null)}

# git overwrites ignored files without a word; here they are somebody's too, those of a repository of its
# own as well. Prints what is in the way of files that come anew, and not in the index.
in_the_way() {
	g diff-tree -r --name-only --diff-filter=A -z "$from" "$new" | xargs -0 -r sh -c '
		for file; do
			above=$file found=
			while [ "${above%/*}" != "$above" ]; do
				above=${above%/*}
				if [ -L "$above" ] || { [ -e "$above" ] && [ ! -d "$above" ]; }; then found=$above; fi
			done
			if [ -z "$found" ] && { [ -e "$file" ] || [ -L "$file" ]; }; then found=$file; fi
			[ -z "$found" ] || printf "./%s\0" "$found"
		done' sh >"$scratch/there"
	[ -s "$scratch/there" ] || return 0
	# Of a folder, what is in it.
	xargs -0 sh -c 'find "$@" -name .git -prune -print0 -o ! -type d -print0' sh <"$scratch/there" |
		sed -z 's,^\./,,' | sort -uz >"$scratch/found"
	g ls-files --cached -z | sort -uz | comm -z -23 "$scratch/found" -
}
in_the_way >"$scratch/way"
if [ -s "$scratch/way" ]; then
	part way 4000000 cat -- "$scratch/way"
	refuse uncommitted_changes ''
fi

g update-index -q --refresh >/dev/null 2>&1 || true
g read-tree -n -m -u "$from" "$new" >&2 || {
	if [ -e "$own/index.lock" ]; then refuse git_locked "$own/index.lock"; fi
	part theirs 4000000 g diff-tree -r --name-only -z "$from" "$new"
	part mine 4000000 g diff-index --name-only -z "$from" --
	refuse uncommitted_changes ''
}
# If what follows is cut short, the next script ends it.
noted=$own/craftastic-pull
printf '%s\n%s\n%s\n' "$head" "$from" "$new" >"$noted.new"
mv -f -- "$noted.new" "$noted"
g read-tree -m -u "$from" "$new" >&2 || {
	if [ -e "$own/index.lock" ]; then refuse git_locked "$own/index.lock"; fi
	exit 1
}
if ! g update-ref -m "pull ($mode)" "$head" "$new" "$old" >&2; then
	g read-tree -m -u "$new" "$from" >&2 || true
	rm -f -- "$noted"
	refuse branch_moved ''
fi
rm -f -- "$noted"
if [ -n "$old" ]; then g update-ref ORIG_HEAD "$old" || true; fi
