# most bytes, commits, commits to leave out first, branch or commit ('' for the worktree's own).
most=$1 limit=$2 offset=$3 ref=$4
need_worktree
if [ -n "$ref" ]; then
	resolve "$ref"
elif ! commit=$(commit_at HEAD); then
	exit 0
fi
part commits "$most" look log -z --no-color --no-show-signature --no-ext-diff --no-patch --decorate=full \
	--encoding=UTF-8 --skip="$offset" --max-count="$limit" \
	--format=%H%x00%P%x00%an%x00%ae%x00%ai%x00%D%x00%B%x00 "$commit" --
part unpushed "$most" look rev-list --max-count="$((offset + limit))" "$commit" --not --remotes --
