# repository, time. A finished new clone is in `craftastic-new`: it gets all that can still be read of
# the damaged repository and is nowhere else, then takes its place. The damaged one is kept whole, in
# `damaged-TIME`. Every step may be repeated, and the last ones are only renames.
repo=$1 now=$2
lock 60
new=$repo/craftastic-new
# Where the damaged one is by now; with `late` it stands aside already, and there is no way back.
old=$repo late=
trap 'rm -rf -- "$scratch"; find "$new/objects" -name "tmp_*" -type f -delete 2>/dev/null || true' EXIT

PASSING='out of memory|cannot (allocate|fork)|mmap failed|unable to create|too many open|write error|short write'
DAMAGE='corrupt|inflate|unable to (read|unpack|parse|get|load)|(could|can)not (be )?read|bad |missing|invalid'
DAMAGE="$DAMAGE|mismatch|does not match|garbage|too short|truncated|failed to|not a valid|disappear"

# The new clone, and behind it what the damaged one has beyond that.
both() {
	GIT_ALTERNATE_OBJECT_DIRECTORIES="$old/objects" git --git-dir="$new" -c core.commitGraph=false \
		-c core.multiPackIndex=false "$@" 9>&-
}

# status, and in what words git tells of damage (none: in any). Returns where git failed for what it read.
# Whatever else stops it (no room, no memory, a signal) is over at another time: nothing may count as lost
# for it, so the repair ends before anything has changed places.
damage_only() {
	if [ -n "$late" ]; then return 0; fi
	if grep -qE 'No space left|Disk quota exceeded' "$scratch/words"; then
		refuse disk_full 'The disk is full: what is only in the damaged repository could not be carried over.'
	fi
	if [ "$1" -le 129 ] && ! grep -qiE "$PASSING" "$scratch/words" &&
		{ [ -z "${2:-}" ] || grep -qiE "$2" "$scratch/words"; }; then return 0; fi
	head -c 1000 "$scratch/words" >&2
	exit 1
}

is_whole() {
	status=0
	g --git-dir="$new" rev-list --objects "$1" --not --remotes >/dev/null 2>"$scratch/words" || status=$?
	[ "$status" != 0 ] || return 0
	damage_only "$status"
	return 1
}

# Packs objects of both for the new clone; fails where one of them cannot be read.
pack() {
	status=0
	both pack-objects -q --non-empty "$new/objects/pack/pack" >/dev/null 2>"$scratch/words" || status=$?
	[ "$status" != 0 ] || return 0
	find "$new/objects" -name 'tmp_*' -type f -delete
	damage_only "$status" "$DAMAGE"
	return 1
}

# Brings a commit with all that it needs; fails where something of it cannot be read.
take() {
	if is_whole "$1"; then return 0; fi
	status=0
	both rev-list --objects "$1" --not --remotes >"$scratch/objects" 2>"$scratch/words" </dev/null || status=$?
	if [ "$status" != 0 ]; then
		damage_only "$status"
		return 1
	fi
	cut -d ' ' -f 1 <"$scratch/objects" >"$scratch/ids" || exit 1
	pack <"$scratch/ids" && is_whole "$1"
}

# Every ref of the damaged repository that is no copy of the remote's, read without git.
refs() {
	sed -n 's/^\([0-9a-f]\{40,64\} refs\/.*\)$/\1/p' "$old/packed-refs" 2>/dev/null || true
	(cd -- "$old" && find refs -type f ! -name '*.lock' -size -2 2>/dev/null) | while IFS= read -r ref; do
		id=$(head -c 100 "$old/$ref" | tr -d '\0' | head -n 1)
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

set_ref() {
	if g --git-dir="$new" update-ref "$1" "$2" 2>"$scratch/words"; then return 0; fi
	damage_only 1
	did "$1 could not be set; it is only in what is kept."
}

# Where the ref at hand has been, newest first, as git's log of it tells.
been() {
	if [ ! -f "$old/logs/$ref" ]; then return 0; fi
	tail -n 200 -- "$old/logs/$ref" | tr -d '\0' | cut -d ' ' -f 2 | grep -xE '[0-9a-f]{40,64}' | tac
}

# commit. Sets `at` to the newest commit of its line that is whole; counts in `lost` those that are not.
walk() {
	if ! grep -qxF -e "$1" "$scratch/tried"; then
		printf '%s\n' "$1" >>"$scratch/tried"
		if take "$1"; then
			at=$1
			return
		fi
		lost=$((lost + 1))
	fi
	both rev-list --first-parent --max-count=500 "$1" >"$scratch/line" 2>/dev/null </dev/null || true
	while [ "$lost" -lt 500 ] && IFS= read -r one <&7; do
		if grep -qxF -e "$one" "$scratch/tried"; then continue; fi
		printf '%s\n' "$one" >>"$scratch/tried"
		if take "$one"; then
			at=$one
			return
		fi
		lost=$((lost + 1))
	done 7<"$scratch/line"
}

carry_ref() {
	id=$1 ref=$2 at= lost=0
	if [ "$id" != unreadable ] && take "$id"; then
		set_ref "$ref" "$id"
		return
	fi
	case $ref in refs/heads/*) find_line ;; esac
	if [ -n "$at" ]; then
		set_ref "$ref" "$at"
		if [ "$lost" = 0 ]; then
			did "Branch ${ref#refs/heads/} could not be read: it is where git's log of it says that it was last."
		else
			did "Branch ${ref#refs/heads/} is carried over without its newest commits ($lost), which cannot be read."
		fi
		return
	fi
	# A file counts before the line of a packed one, which was carried over before it.
	if g --git-dir="$new" rev-parse --verify --quiet "$ref" >/dev/null; then
		did "$ref could not be read: it stands where it was when git packed it last."
		return
	fi
	case $ref in refs/heads/*) at=$(otherwise "${ref#refs/heads/}") ;; esac
	if [ -z "$at" ]; then
		did "$ref could not be read; it is only in what is kept."
		return
	fi
	did "Nothing of branch ${ref#refs/heads/} that was not pushed could be read: it begins again at the remote's."
	set_ref "$ref" "$at"
}

# Sets `at` to the newest commit of the branch at hand that is whole.
find_line() {
	: >"$scratch/tried"
	been >"$scratch/been" || true
	if [ "$id" != unreadable ]; then walk "$id"; fi
	while [ -z "$at" ] && [ "$lost" -lt 500 ] && IFS= read -r before <&6; do walk "$before"; done 6<"$scratch/been"
}

# Whatever a damaged index stages is fetched along; one that cannot be read is made anew.
carry_index() {
	git --git-dir="$1" ls-files --stage >"$scratch/staged" 2>/dev/null </dev/null 9>&- && {
		sed -n 's/^1[02]0[0-9]* \([0-9a-f]*\) .*/\1/p' "$scratch/staged" | sort -u >"$scratch/blobs"
		absent_ids || return 0
		pack <"$scratch/absent" || true
		absent_ids || return 0
	}
	rm -f -- "$1/index"
	g --git-dir="$1" read-tree HEAD 2>/dev/null || true
	did "What was staged in worktree ${1##*/} could not be read: it is not staged any more. Its files are as they were."
}

absent_ids() {
	git --git-dir="$new" cat-file --batch-check <"$scratch/blobs" 2>/dev/null 9>&- | sed -n 's/ missing$//p' >"$scratch/absent"
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
	for name in ORIG_HEAD MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD MERGE_AUTOSTASH rebase-merge/orig-head \
		rebase-merge/onto rebase-merge/autostash rebase-apply/orig-head rebase-apply/onto rebase-apply/autostash; do
		if [ ! -f "$here/$name" ] || take "$(head -c 64 "$here/$name" | head -n 1)"; then continue; fi
		rm -f -- "$here/$name"
		did "$name of worktree ${here##*/} could not be read; it is only in what is kept."
	done
	carry_index "$here"
}

# Older stashes are only in git's log of the newest one.
carry_stashes() {
	if [ ! -f "$old/logs/refs/stash" ]; then return 0; fi
	last= lost=0
	: >"$scratch/stashes"
	while IFS=' ' read -r before id rest <&8; do
		if take "$id"; then
			printf '%s %s %s\n' "${last:-$before}" "$id" "$rest" >>"$scratch/stashes"
			last=$id
		else
			lost=$((lost + 1))
		fi
	done 8<"$old/logs/refs/stash"
	if [ "$lost" != 0 ]; then did "Stashes that could not be read, and are only in what is kept: $lost."; fi
	[ -s "$scratch/stashes" ] || return 0
	# The newest one counts, though the end of the log may be lost.
	id=$(g --git-dir="$new" rev-parse --verify --quiet refs/stash || true)
	if [ -n "$id" ] && ! grep -q "^[^ ]* $id " "$scratch/stashes"; then
		printf '%s %s Craftastic <craftastic@localhost> 0 +0000\tstash\n' "$last" "$id" >>"$scratch/stashes"
		last=$id
	fi
	set_ref refs/stash "$last"
	mkdir -p -- "$new/logs/refs"
	cp -- "$scratch/stashes" "$new/logs/refs/stash"
}

carry_refs() {
	while IFS=' ' read -r id ref <&8; do
		case $ref in refs/remotes/*) continue ;; esac
		g check-ref-format "$ref" 2>/dev/null || continue
		carry_ref "$id" "$ref"
		case $ref in refs/heads/*) printf '%s\n' "$ref" >>"$scratch/branches" ;; esac
	done 8<"$1"
}

# Contents that never change: a second name of each takes no room.
carry_lfs() {
	if [ ! -d "$old/lfs" ]; then return 0; fi
	rm -rf -- "$new/lfs"
	cp -al -- "$old/lfs" "$new/lfs" 2>/dev/null && return
	rm -rf -- "$new/lfs"
	did 'The folder of git-lfs could not be carried over; it is only in what is kept.'
}

# What worktrees are at and stage, a line for each: to see whether somebody has gone on with one.
worktrees() {
	for entry in "$old"/worktrees/*; do
		if [ ! -d "$entry" ]; then continue; fi
		sum=$(cd -- "$entry" && find . -type f ! -name '*.lock' -exec sha256sum -- {} + 2>/dev/null | sort | sha256sum)
		printf '%s %s\n' "${sum%% *}" "${entry##*/}"
	done
}

carry() {
	told=$new/craftastic-told
	: >"$told"
	: >"$scratch/branches"
	# Nobody else works in the new clone: what one that was cut short has left is nobody's.
	find "$new" \( -name '*.lock' -o -name 'tmp_*' \) -type f ! -name craftastic.lock -delete
	worktrees >"$new/craftastic-worktrees"
	refs >"$new/craftastic-refs"
	carry_refs "$new/craftastic-refs"
	carry_stashes
	for entry in "$old"/worktrees/*; do
		if [ -d "$entry" ]; then carry_worktree "$entry"; fi
	done
	for name in hooks info; do
		if [ -d "$old/$name" ]; then cp -a -- "$old/$name/." "$new/$name/" 2>/dev/null || true; fi
	done
	carry_lfs
	# What people have set; what makes this a repository, and where its remote is, is the new one's.
	git config --file "$old/config" --no-includes --null --list >"$scratch/config" 2>/dev/null </dev/null 9>&- ||
		did 'The settings in its config could not be read; they are only in what is kept.'
	tr '\n\0' '\001\n' <"$scratch/config" |
		while IFS="$(printf '\001')" read -r key value; do
			case $key in core.* | extensions.* | include.* | includeif.* | remote.origin.* | '') continue ;; esac
			g config --file "$new/config" --get-all "$key" 2>/dev/null | grep -qxF -e "$value" ||
				g config --file "$new/config" --add "$key" "$value" 2>/dev/null || true
		done
	did "Local branches that were carried over: $(sort -u "$scratch/branches" | wc -l)."
	printf '%s\n' "$now" >"$new/craftastic-carried.new"
	sync -- "$new/craftastic-carried.new" 2>/dev/null || true
	mv -f -- "$new/craftastic-carried.new" "$new/craftastic-carried"
}

# The last line of a ref counts.
lasting() {
	tac -- "$1" | sort -s -u -k 2
}

# What people have done while all that was carried over is behind, now that nobody can add to it.
carry_late() {
	old=$aside late=yes told=$new/craftastic-told
	: >"$scratch/branches"
	: >>"$new/craftastic-refs"
	: >>"$new/craftastic-worktrees"
	refs >"$scratch/refs"
	lasting "$new/craftastic-refs" >"$scratch/first"
	lasting "$scratch/refs" | grep -vxF -f "$scratch/first" >"$scratch/late" || true
	carry_refs "$scratch/late"
	if grep -q ' refs/stash$' "$scratch/late"; then carry_stashes; fi
	worktrees | grep -vxF -f "$new/craftastic-worktrees" >"$scratch/late" || true
	while IFS=' ' read -r _ name <&5; do carry_worktree "$aside/worktrees/$name"; done 5<"$scratch/late"
	carry_lfs
	: >"$new/craftastic-late"
}

# Sets `now` to the time of this repair once all is carried over; a loss of power may leave an empty mark.
read_mark() {
	now=
	IFS= read -r now 2>/dev/null <"$new/craftastic-carried" || true
	case $now in *[!0-9TZ]* | '') return 1 ;; esac
}

if [ ! -e "$new/craftastic-aside" ]; then
	if ! (repo=$new && sound); then
		rm -f -- "$new/craftastic-carried"
		refuse repository_corrupt 'The new clone beside the damaged repository is damaged itself. Repair again: it is made anew.'
	fi
	began=$now
	read_mark || {
		now=$began
		carry
	}
	aside=$repo/damaged-$now
	mkdir -p -- "$aside"
	# Without its mark nobody takes what is half there for a whole one.
	if [ -e "$repo/craftastic-cloned" ]; then mv -- "$repo/craftastic-cloned" "$aside/"; fi
	find "$repo" -mindepth 1 -maxdepth 1 ! -name 'damaged-*' ! -name craftastic-new ! -name craftastic.lock \
		! -name craftastic-repaired -exec mv -t "$aside" -- {} +
	: >"$new/craftastic-aside"
elif read_mark; then
	aside=$repo/damaged-$now
else
	for aside in "$repo"/damaged-*; do :; done
fi
if [ ! -e "$new/craftastic-late" ]; then carry_late; fi
find "$new" -mindepth 1 -maxdepth 1 ! -name 'craftastic*' -exec mv -t "$repo" -- {} +
if [ -e "$new/craftastic.config" ]; then mv -- "$new/craftastic.config" "$repo/"; fi
if [ -e "$new/craftastic-cloned" ]; then mv -- "$new/craftastic-cloned" "$repo/"; fi
if [ -f "$new/craftastic-told" ]; then cat -- "$new/craftastic-told" >>"$repo/craftastic-repaired"; fi
rm -rf -- "$new"
