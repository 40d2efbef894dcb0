# most bytes of the diff, most bytes of a list, most new files, worktree|staged|base, base; the name
# of a file or folder comes by standard input, empty for all.
most=$1 most_listed=$2 most_new=$3 what=$4 base=$5
name=$(cat; printf x)
name=${name%x}
need_worktree
make_scratch
set -- --
if [ -n "$name" ]; then set -- -- "$name"; fi

# New files are shown as added: they are noted in a copy of the index, the true one stays as it is.
note_new() {
	kept "$scratch/all" 4000000 look ls-files --others --exclude-standard -z "$@"
	grep -azv '/$' "$scratch/all" | head -z -n "$((most_new + 1))" >"$scratch/new" || true
	[ -s "$scratch/new" ] || return 0
	if [ "$(tr -dc '\0' <"$scratch/new" | wc -c)" -gt "$most_new" ]; then
		head -z -n "$most_new" "$scratch/new" >"$scratch/first"
		mv -f -- "$scratch/first" "$scratch/new"
		field cut yes
	fi
	if [ -f "$own/index" ]; then cp -- "$own/index" "$scratch/index"; fi
	export GIT_INDEX_FILE="$scratch/index"
	for _ in 1 2 3; do
		# A file that went away meanwhile makes git note none of them.
		if look add --intent-to-add --pathspec-from-file="$scratch/new" --pathspec-file-nul 2>/dev/null; then return 0; fi
		look ls-files --others --exclude-standard -z "$@" | grep -azv '/$' | head -z -n "$most_new" >"$scratch/new" || true
	done
	field cut yes
}

against=
case $what in
staged) against=--cached ;;
base)
	resolve "$base"
	head=$(commit_at HEAD) || refuse no_common_commit "$base"
	against=$(g merge-base "$head" "$commit") || refuse no_common_commit "$base"
	field base "$against"
	note_new "$@"
	;;
*) note_new "$@" ;;
esac

compare() {
	look diff --no-ext-diff --no-textconv --no-color --find-renames --ignore-submodules=dirty \
		--src-prefix=a/ --dst-prefix=b/ "$@"
}
part files "$most_listed" compare --raw -z --no-abbrev ${against:+"$against"} "$@"
part patch "$most" compare --patch ${against:+"$against"} "$@"
part counts "$most_listed" compare --numstat -z ${against:+"$against"} "$@"
