# repository, time. A finished new clone is in `craftastic-new`: it gets all that can still be read of
# the damaged repository and is nowhere else, then takes its place. The damaged one is kept whole, in
# `damaged-TIME`. Every step may be repeated, and the last ones are only renames.
repo=$1 now=$2
lock 60
new=$repo/craftastic-new

# The new clone, and behind it what the damaged one has beyond that.
both() {
	GIT_ALTERNATE_OBJECT_DIRECTORIES="$repo/objects" git --git-dir="$new" -c core.commitGraph=false \
		-c core.multiPackIndex=false "$@" 9>&-
}

is_whole() {
	g --git-dir="$new" rev-list --objects "$1" --not --remotes >/dev/null 2>&1
}

# Brings a commit with all that it needs; fails where something of it cannot be read.
take() {
	if is_whole "$1"; then return 0; fi
	both rev-list --objects "$1" --not --remotes >"$scratch/objects" 2>/dev/null </dev/null || return 1
	cut -d ' ' -f 1 <"$scratch/objects" |
		both pack-objects -q --non-empty "$new/objects/pack/pack" >/dev/null 2>&1 || return 1
	is_whole "$1"
}

# Every ref of the damaged repository that is no copy of the remote's, read without git.
refs() {
	sed -n 's/^\([0-9a-f]\{40,64\} refs\/.*\)$/\1/p' "$repo/packed-refs" 2>/dev/null || true
	(cd -- "$repo" && find refs -type f ! -name '*.lock' -size -2 2>/dev/null) | while IFS= read -r ref; do
		id=$(head -c 100 "$repo/$ref" | tr -d '\0' | head -n 1)
		case $id in *[!0-9a-f]* | '') id=unreadable ;; esac
		printf '%s %s\n' "$id" "$ref"
	done
}

# branch: where else it can begin when nothing of it can be read.
otherwise() {
	for one in "refs/remotes/origin/$1" refs/remotes/origin/HEAD; do
		if g --git-dir="$new" rev-parse --verify --quiet "$one^{commit}"; then return; fi
	done
}

carry_ref() {
	id=$1 ref=$2 at=
	if [ "$id" != unreadable ] && take "$id"; then
		g --git-dir="$new" update-ref "$ref" "$id" && return
	fi
	case $ref in refs/heads/*) ;; *)
		did "$ref could not be read; it is only in what is kept."
		return
		;;
	esac
	branch=${ref#refs/heads/} lost=0
	both rev-list --first-parent --max-count=500 "$id" >"$scratch/line" 2>/dev/null </dev/null || true
	while IFS= read -r one <&7; do
		if take "$one"; then
			at=$one
			break
		fi
		lost=$((lost + 1))
	done 7<"$scratch/line"
	if [ -n "$at" ]; then
		did "Branch $branch is carried over without its newest commits ($lost), which cannot be read."
	else
		at=$(otherwise "$branch")
		[ -n "$at" ] || return 0
		did "Nothing of branch $branch that was not pushed could be read: it begins again at the remote's."
	fi
	g --git-dir="$new" update-ref "$ref" "$at" || true
}

# Whatever a damaged index stages is fetched along; one that cannot be read is made anew.
carry_index() {
	git --git-dir="$1" ls-files --stage >"$scratch/staged" 2>/dev/null </dev/null 9>&- && {
		sed -n 's/^1[02]0[0-9]* \([0-9a-f]*\) .*/\1/p' "$scratch/staged" | sort -u >"$scratch/ids"
		absent_ids || return 0
		both pack-objects -q --non-empty "$new/objects/pack/pack" <"$scratch/absent" >/dev/null 2>&1 || true
		absent_ids || return 0
	}
	rm -f -- "$1/index"
	g --git-dir="$1" read-tree HEAD 2>/dev/null || true
	did "What was staged in worktree ${1##*/} could not be read: it is not staged any more. Its files are as they were."
}

absent_ids() {
	git --git-dir="$new" cat-file --batch-check <"$scratch/ids" 2>/dev/null 9>&- | sed -n 's/ missing$//p' >"$scratch/absent"
	[ -s "$scratch/absent" ]
}

carry_worktree() {
	entry=$1 here=$new/worktrees/${1##*/} head=
	if [ ! -f "$entry/gitdir" ] || [ ! -f "$entry/HEAD" ]; then return 0; fi
	head=$(head -c 1000 "$entry/HEAD" | tr -d '\0' | head -n 1)
	case $head in
	'ref: refs/heads/'*) ;;
	*[!0-9a-f]* | '') return 0 ;;
	*) take "$head" || return 0 ;;
	esac
	mkdir -p -- "$new/worktrees"
	rm -rf -- "$here"
	cp -a -- "$entry" "$here"
	find "$here" -name '*.lock' ! -type d -delete
	printf '../..\n' >"$here/commondir"
	for name in ORIG_HEAD MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD; do
		if [ -f "$here/$name" ]; then take "$(head -c 64 "$here/$name" | head -n 1)" || rm -f -- "$here/$name"; fi
	done
	carry_index "$here"
}

carry() {
	told=$new/craftastic-told
	: >"$told"
	refs >"$scratch/refs"
	carried=0
	while IFS=' ' read -r id ref <&8; do
		case $ref in refs/remotes/*) continue ;; esac
		g check-ref-format "$ref" 2>/dev/null || continue
		# A file counts before the line of a packed one.
		if [ "$id" = unreadable ] && g --git-dir="$new" rev-parse --verify --quiet "$ref" >/dev/null; then
			did "$ref could not be read: it stands where it was when git packed it last."
			continue
		fi
		carry_ref "$id" "$ref"
		case $ref in refs/heads/*) carried=$((carried + 1)) ;; esac
	done 8<"$scratch/refs"
	if [ -f "$repo/logs/refs/stash" ]; then
		mkdir -p -- "$new/logs/refs"
		while IFS=' ' read -r before id rest <&8; do
			if take "$id"; then printf '%s %s %s\n' "$before" "$id" "$rest"; fi
		done 8<"$repo/logs/refs/stash" >"$new/logs/refs/stash"
	fi
	for entry in "$repo"/worktrees/*; do
		if [ -d "$entry" ]; then carry_worktree "$entry"; fi
	done
	for name in hooks info; do
		if [ -d "$repo/$name" ]; then cp -a -- "$repo/$name/." "$new/$name/" 2>/dev/null || true; fi
	done
	# What people have set; what makes this a repository, and where its remote is, is the new one's.
	git config --file "$repo/config" --no-includes --null --list >"$scratch/config" 2>/dev/null </dev/null ||
		did 'The settings in its config could not be read; they are only in what is kept.'
	tr '\n\0' '\001\n' <"$scratch/config" |
		while IFS="$(printf '\001')" read -r key value; do
			case $key in core.* | extensions.* | include.* | includeif.* | remote.origin.* | '') continue ;; esac
			g config --file "$new/config" --get-all "$key" 2>/dev/null | grep -qxF -e "$value" ||
				g config --file "$new/config" --add "$key" "$value" 2>/dev/null || true
		done
	did "Local branches that were carried over: $carried."
	printf '%s\n' "$now" >"$new/craftastic-carried.new"
	mv -f -- "$new/craftastic-carried.new" "$new/craftastic-carried"
}

[ -e "$new/craftastic-carried" ] || carry
IFS= read -r now <"$new/craftastic-carried"
case $now in *[!0-9TZ]* | '') refuse repository_corrupt 'The new clone beside the damaged repository is damaged itself.' ;; esac
aside=$repo/damaged-$now
if [ ! -e "$new/craftastic-aside" ]; then
	mkdir -p -- "$aside"
	# Without its mark nobody takes what is half there for a whole one.
	if [ -e "$repo/craftastic-cloned" ]; then mv -- "$repo/craftastic-cloned" "$aside/"; fi
	find "$repo" -mindepth 1 -maxdepth 1 ! -name 'damaged-*' ! -name craftastic-new ! -name craftastic.lock \
		! -name craftastic-repaired -exec mv -t "$aside" -- {} +
	: >"$new/craftastic-aside"
fi
find "$new" -mindepth 1 -maxdepth 1 ! -name 'craftastic*' -exec mv -t "$repo" -- {} +
if [ -e "$new/craftastic.config" ]; then mv -- "$new/craftastic.config" "$repo/"; fi
if [ -e "$new/craftastic-cloned" ]; then mv -- "$new/craftastic-cloned" "$repo/"; fi
if [ -f "$new/craftastic-told" ]; then cat -- "$new/craftastic-told" >>"$repo/craftastic-repaired"; fi
rm -rf -- "$new"
