# Begins every script here. A script runs in the sandbox as `sh -ceu SCRIPT sh ARGUMENTS…`:
# values are arguments, never part of it. `refuse` ends it with 40, a code and a text.
export LC_ALL=C GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=http:https
export GIT_LFS_SKIP_SMUDGE=1 GIT_EDITOR=: GIT_PAGER=cat
export GIT_AUTHOR_NAME=Craftastic GIT_AUTHOR_EMAIL=craftastic@localhost
export GIT_COMMITTER_NAME=Craftastic GIT_COMMITTER_EMAIL=craftastic@localhost

# Hooks and monitors belong to what people type; they could keep these commands waiting for ever.
g() {
	git -c core.fsmonitor=false -c core.hooksPath=/dev/null -c gc.auto=0 -c maintenance.auto=false \
		-c advice.addEmbeddedRepo=false -c advice.detachedHead=false -c core.quotePath=true \
		"$@" </dev/null 9>&-
}

# Makes the index that GIT_INDEX_FILE names look at files, where they exist, that it was told to
# overlook (skip-worktree, assume-unchanged): people keep edits of their own in them.
look_at_all() {
	if ! g ls-files -v | grep -q '^[a-zS]'; then return 0; fi
	overlooked=$GIT_INDEX_FILE.overlooked
	g ls-files -v -z | sed -z -n 's/^[a-zS] //p' | xargs -0 -r sh -c '
		for name do
			if [ -e "$name" ] || [ -L "$name" ]; then printf "%s\0" "$name"; fi
		done' sh >"$overlooked" || return 1
	for bit in --no-skip-worktree --no-assume-unchanged; do
		git -c core.fsmonitor=false update-index -z "$bit" --stdin <"$overlooked" 9>&- || return 1
	done
	rm -f -- "$overlooked"
}

# name, e-mail address: what commits are signed with until the user says otherwise.
identify() {
	if [ -e "$HOME/.gitconfig" ] || [ -e "$HOME/.config/git/config" ]; then return 0; fi
	mkdir -p -- "$HOME/.config/git"
	whole=$(mktemp -- "$HOME/.config/git/.config.XXXXXX") || return 1
	g config --file "$whole" user.name "$1" && g config --file "$whole" user.email "$2" &&
		chmod 644 -- "$whole" && mv -n -- "$whole" "$HOME/.config/git/config"
	rm -f -- "$whole"
}

refuse() {
	printf '%s\n%s\n' "$1" "$2"
	exit 40
}

# One script at a time in one repository, whichever server process started it.
lock() {
	if [ -e "$repo/craftastic.lock" ] && [ ! -f "$repo/craftastic.lock" ]; then
		refuse repository_corrupt 'The repository is damaged: its lock is no file.'
	fi
	exec 9>>"$repo/craftastic.lock"
	flock -w "$1" 9 || refuse busy 'Another operation on the repository takes too long.'
}

# With a deadline: a pipe in a file's place would keep git waiting.
sound() {
	[ -f "$repo/HEAD" ] && [ -d "$repo/objects" ] &&
		timeout 20 git --git-dir="$repo" rev-parse --git-dir >/dev/null 2>&1 </dev/null 9>&-
}

need_repository() {
	[ -e "$repo/craftastic-cloned" ] || refuse repository_missing 'The repository is not there.'
	sound || refuse repository_corrupt 'The repository is damaged: git cannot read it.'
}

# Sets `own` to what the repository knows about the worktree at `path`.
find_own() {
	own=
	for entry in "$repo"/worktrees/*; do
		[ -f "$entry/gitdir" ] || continue
		pointer=
		IFS= read -r pointer <"$entry/gitdir" || true
		if [ "$pointer" = "$path/.git" ]; then own=$entry; fi
	done
}

is_worktree() {
	[ -f "$path/.git" ] || return 1
	[ -n "$own" ] && [ -f "$own/HEAD" ] && [ -f "$own/commondir" ] || return 1
	common=$(g -C "$path" rev-parse --path-format=absolute --git-common-dir 2>/dev/null) || return 1
	[ "$common" -ef "$repo" ] || return 1
	actual=$(g -C "$path" rev-parse --path-format=absolute --git-dir 2>/dev/null) || return 1
	[ "$actual" -ef "$own" ]
}

repair() {
	g --git-dir="$repo" worktree repair -- "$path" >/dev/null 2>&1 || true
	is_worktree
}

is_empty() {
	[ -d "$path" ] && [ ! -L "$path" ] && [ -z "$(find "$path" -mindepth 1 -maxdepth 1 -print -quit)" ]
}

# Prints where it put what was at `path`; nothing of a user's is deleted because git cannot read it.
put_aside() {
	mkdir -p -- "$root/.kept"
	aside=$root/.kept/$1
	while [ -e "$aside" ] || [ -L "$aside" ]; do aside=$aside.1; done
	mv -- "$path" "$aside"
}

drop_empty_parents() {
	parent=${path%/*}
	while [ "$parent" != "$root" ] && [ "${parent#"$root"/}" != "$parent" ]; do
		rmdir -- "$parent" 2>/dev/null || break
		parent=${parent%/*}
	done
}
