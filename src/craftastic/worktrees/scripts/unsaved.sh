# repository. Prints one line for each worktree with work that no other place has.
repo=$1
sound || exit 0

# Runs in a subshell, with a copy of the index.
nothing_overlooked() (
	[ -f "$entry/index" ] && g -C "$path" ls-files -v | grep -q '^[a-zS]' || exit 0
	GIT_INDEX_FILE=$(mktemp)
	export GIT_INDEX_FILE
	trap 'rm -f -- "$GIT_INDEX_FILE" "$GIT_INDEX_FILE.overlooked" "$GIT_INDEX_FILE.lock"' EXIT
	cp -- "$entry/index" "$GIT_INDEX_FILE"
	cd -- "$path"
	look_at_all && g update-index -q --refresh && g diff-files --quiet
)

for entry in "$repo"/worktrees/*; do
	[ -f "$entry/gitdir" ] || continue
	pointer=
	IFS= read -r pointer <"$entry/gitdir" || true
	path=${pointer%/.git}
	[ -d "$path" ] || continue
	name=$(g -C "$path" symbolic-ref --quiet --short HEAD 2>/dev/null || echo HEAD)
	unpushed=$(g -C "$path" rev-list --count HEAD --not --remotes 2>/dev/null || echo 0)
	uncommitted=no
	if [ -n "$(GIT_OPTIONAL_LOCKS=0 g -C "$path" status --porcelain 2>/dev/null | head -c 1)" ] ||
		! nothing_overlooked 2>/dev/null; then
		uncommitted=yes
	fi
	if [ "$uncommitted" = yes ] || [ "$unpushed" != 0 ]; then
		printf '%s %s %s\n' "$uncommitted" "$unpushed" "$name"
	fi
done
