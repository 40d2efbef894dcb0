# seconds.
seconds=$1
need_worktree
make_scratch
remote_refs() {
	g for-each-ref --count=20000 '--format=%(if)%(symref)%(then)%(else)%(objectname) %(refname)%(end)' refs/remotes/origin
}
part before 5000000 remote_refs
for _ in 1 2; do
	status=0
	timeout -k 3 "$seconds" git --git-dir="$repo" -c core.hooksPath=/dev/null -c gc.auto=0 \
		-c maintenance.auto=false fetch --quiet --prune --no-recurse-submodules origin \
		>"$scratch/said" 2>&1 </dev/null 3>&- 4>&- || status=$?
	# Another fetch at the same moment; the second one finds everything there.
	grep -q 'cannot lock ref' "$scratch/said" || break
done
field status "$status"
part_end said 64000 "$scratch/said"
part after 5000000 remote_refs
head=$(g symbolic-ref --quiet HEAD || true)
field branch "$head"
upstream=
if [ -n "$head" ]; then upstream=$(g rev-parse --symbolic-full-name "${head#refs/heads/}@{upstream}" 2>/dev/null || true); fi
field upstream "$upstream"
if [ -n "$upstream" ] && commit_at HEAD >/dev/null && commit_at "$upstream" >/dev/null; then
	field counts "$(g rev-list --left-right --count "HEAD...$upstream" -- | tr '\t' ' ')"
fi
