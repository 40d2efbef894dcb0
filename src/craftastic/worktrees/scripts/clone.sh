# repository, gateway's base URL, remote URL, branch wanted, and perhaps what `identify` takes; the
# token is the first line of input.
# May be repeated: what was fetched stays, the configuration is written again.
repo=$1 gateway=$2 url=$3 branch=$4
IFS= read -r token
mkdir -p -- "$repo"
lock 60

# What a user has made, which no first clone has.
has_work() {
	[ -z "$(find "$repo/refs/heads" "$repo/worktrees" "$repo/refs/stash" -type f -print -quit 2>/dev/null)" ] || return 0
	grep -aq ' refs/heads/' "$repo/packed-refs" 2>/dev/null
}

# Of a clone that was cut short: what could still be of use stays.
clear_away() {
	if has_work; then refuse repository_corrupt 'The repository is damaged: parts of it are gone.'; fi
	# Nothing of a user's is here before the first clone has ended.
	find "$repo" -name '*.lock' ! -path "$repo/craftastic.lock" -delete
	find "$repo/objects" -name 'tmp_*' -type f -delete 2>/dev/null || true
	if ! sound; then
		find "$repo" -mindepth 1 -maxdepth 1 ! -name craftastic.lock ! -name 'damaged-*' ! -name craftastic-new -exec rm -rf -- {} +
	fi
}

# A file says so at once, else git does.
has_ref() {
	case $1 in
	*..*) ;;
	*) if [ -f "$repo/$1" ]; then return 0; fi ;;
	esac
	g --git-dir="$repo" show-ref --verify --quiet "$1"
}

begun() {
	[ -s "$1/craftastic-carried" ] || [ -e "$1/craftastic-aside" ]
}

if begun "$repo/craftastic-new"; then
	refuse repository_corrupt 'A repair of the repository has been begun and not ended.'
fi
# One that is made beside a damaged repository has only what that one has too, until they change places:
# what a loss of power has left of it is made anew.
if [ "${repo##*/}" = craftastic-new ] && ! begun "$repo"; then
	if { [ -e "$repo/craftastic-cloned" ] && ! sound; } || { [ ! -e "$repo/craftastic-cloned" ] && has_work; }; then
		find "$repo" -mindepth 1 -maxdepth 1 ! -name craftastic.lock -exec rm -rf -- {} +
	fi
fi
if [ ! -e "$repo/craftastic-cloned" ]; then
	if [ -n "$(find "$repo" -mindepth 1 -maxdepth 1 ! -name craftastic.lock -print -quit)" ]; then clear_away; fi
	# One that is there is not made again: git would warn, and the warning stand in the reason.
	if [ ! -e "$repo/HEAD" ]; then
		g init --quiet --bare --template= --initial-branch="$branch" "$repo"
	fi
	mkdir -p -- "$repo/hooks" "$repo/info"
elif ! sound; then
	refuse repository_corrupt 'The repository is damaged: git cannot read it.'
fi

# The token reaches a file of the sandbox's user by way of this shell's input, never an argument.
umask_before=$(umask)
umask 077
{
	printf '[remote "origin"]\n\turl = %s\n' "$url"
	printf '\tfetch = +refs/heads/*:refs/remotes/origin/*\n\tproxy =\n'
	printf '[http "%s"]\n\textraHeader = Authorization: Bearer %s\n' "$gateway" "$token"
	printf '\tfollowRedirects = false\n'
	printf '[push]\n\tdefault = current\n\tautoSetupRemote = true\n'
} >"$repo/craftastic.config.new"
mv -f -- "$repo/craftastic.config.new" "$repo/craftastic.config"
umask "$umask_before"
if [ "$(g config --file "$repo/config" --get-all include.path || true)" != craftastic.config ]; then
	g config --file "$repo/config" --replace-all include.path craftastic.config
fi
if [ ! -e "$repo/hooks/pre-push" ]; then
	cat >"$repo/hooks/pre-push" <<'HOOK'
#!/bin/sh
# Made by Craftastic, yours to change. A new branch follows the one it began from, so that
# `git pull` works from the start; once pushed to origin it follows itself.
while read -r from _ to _; do
	case $from in
	refs/heads/*)
		if [ "$1" = origin ] && [ "$from" = "$to" ]; then
			git config "branch.${from#refs/heads/}.remote" origin
			git config "branch.${from#refs/heads/}.merge" "$to"
		fi
		;;
	esac
done
exit 0
HOOK
	chmod 755 "$repo/hooks/pre-push"
fi

identified=
if [ $# -ge 6 ]; then
	identify "$5" "$6" >/dev/null 2>&1 &
	identified=$!
fi
# Asked beside the fetch, which does not tell it: each takes several round trips.
g --git-dir="$repo" ls-remote --symref origin HEAD >"$repo/craftastic.head" 2>/dev/null &
asked=$!
g --git-dir="$repo" fetch --progress --prune --no-recurse-submodules origin || {
	status=$?
	kill "$asked" 2>/dev/null || true
	# git leaves what it had received so far, which may be what has filled the disk.
	[ -e "$repo/craftastic-cloned" ] || find "$repo/objects" -name 'tmp_*' -type f -delete 2>/dev/null || true
	rm -f -- "$repo/craftastic.head"
	exit "$status"
}
wait "$asked" || true
[ -z "$identified" ] || wait "$identified" || true
default=$(sed -n 's#^ref: refs/heads/\(.*\)	HEAD$#\1#p' "$repo/craftastic.head")
rm -f -- "$repo/craftastic.head"
if [ -n "$default" ] && has_ref "refs/remotes/origin/$default"; then
	g --git-dir="$repo" symbolic-ref refs/remotes/origin/HEAD "refs/remotes/origin/$default"
	[ -e "$repo/craftastic-cloned" ] || g --git-dir="$repo" symbolic-ref HEAD "refs/heads/$default"
	printf 'default %s\n' "$default"
fi
if has_ref "refs/remotes/origin/$branch"; then
	printf 'found yes\n'
fi
: >"$repo/craftastic-cloned"
printf 'done yes\n'
