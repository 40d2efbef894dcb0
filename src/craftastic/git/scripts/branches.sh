# most bytes, most branches.
most=$1 count=$2
need_repository
export GIT_DIR="$repo"
field default "$(g symbolic-ref --quiet refs/remotes/origin/HEAD || true)"
field count "$count"
part refs "$most" look for-each-ref --count="$((count + 1))" --sort=-committerdate \
	'--format=%(refname)%00%(symref)%00%(objectname)%00%(upstream)%00%(upstream:track,nobracket)%00%(if)%(worktreepath)%(then)yes%(end)%00%(committerdate:iso8601)%00%(contents:subject)%00' \
	refs/heads refs/remotes/origin
